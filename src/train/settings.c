#include "train/settings.h"

#include <math.h>

static const kp_config_row train_rows[] = {
    {"train.init", KP_CONFIG_STRING, "", NULL,
     "run whose parameters to start from, RUN, RUN@last or RUN@STEP (its best ones unless said)"},
    {"train.only", KP_CONFIG_TEXTS, "[]", NULL,
     "patterns of the parameters to train, all others stay: [head, blocks.4-5, norms]; none: all"},
    {"train.freeze", KP_CONFIG_TEXTS, "[]", NULL,
     "patterns of parameters that stay as they are: [embedding, blocks.0-3, \"*.attn.*\"]"},
    {"train.lora.rank", KP_CONFIG_INTEGER, "0", "[0, 65536]",
     "of low-rank adapters, which are trained instead of all else but a classifier's head; 0: none"},
    {"train.lora.alpha", KP_CONFIG_REAL, "16", "(0, 1e6]", "adapters count alpha / rank"},
    {"train.lora.dropout", KP_CONFIG_REAL, "0", "[0, 1)", "of what adapters read"},
    {"train.lora.targets", KP_CONFIG_TEXTS, "[attention, feed_forward]", NULL,
     "patterns of the linear maps that have one: [\"*.c_attn.*\", blocks.4-5.feed_forward]"},
    {"train.steps", KP_CONFIG_INTEGER, "2000", "[1, 1000000000]", "optimizer steps"},
    {"train.batch", KP_CONFIG_INTEGER, "12", "[1, 65536]", "rows of a micro-batch"},
    {"train.accumulate", KP_CONFIG_INTEGER, "1", "[1, 65536]", "micro-batches of a step"},
    {"train.learning_rate", KP_CONFIG_REAL, "1e-3", "(0, 10]", "peak learning rate"},
    {"train.optimizer", KP_CONFIG_CHOICE, "adamw", "adamw|muon|hyperball_adamw|hyperball_muon",
     "of hidden matrices; hyperball: each keeps its norm. All else is AdamW's, or Riemannian Adam's"},
    {"train.schedule", KP_CONFIG_CHOICE, "cosine", "cosine|constant|helm",
     "after the warm-up: cosine decay, constant with a cooldown, or HELM's, which starts at 0"},
    {"train.warmup", KP_CONFIG_INTEGER, "100", "[0, 1000000000]", "steps of linear warm-up"},
    {"train.minimum", KP_CONFIG_REAL, "0.1", "[0, 1]",
     "final learning rate as a share of the peak; helm: added to its cosine of 0.9"},
    {"train.cooldown", KP_CONFIG_REAL, "0.2", "[0, 1]",
     "constant schedule: the last share of the steps, falling linearly"},
    {"train.weight_decay", KP_CONFIG_REAL, "0.1", "[0, 10]", "AdamW's, of matrices and embeddings"},
    {"train.beta1", KP_CONFIG_REAL, "0.9", "[0, 1)", "AdamW's decay of the first moment"},
    {"train.beta2", KP_CONFIG_REAL, "0.99", "[0, 1)", "AdamW's decay of the second moment"},
    {"train.epsilon", KP_CONFIG_REAL, "1e-8", "(0, 1]", "AdamW's floor of the denominator"},
    {"train.curvature_rate", KP_CONFIG_REAL, "1", "[0, 1000]", "multiplies the learning rate of curvatures"},
    {"train.muon_rate", KP_CONFIG_REAL, "0.02", "(0, 10]", "Muon's peak learning rate"},
    {"train.muon_momentum", KP_CONFIG_REAL, "0.95", "[0, 1)", "Muon's decay of the momentum"},
    {"train.muon_nesterov", KP_CONFIG_BOOLEAN, "true", NULL, "look ahead along the momentum"},
    {"train.muon_steps", KP_CONFIG_INTEGER, "5", "[1, 100]", "iterations that make Muon's update orthogonal"},
    {"train.muon_decay", KP_CONFIG_REAL, "0.1", "[0, 10]", "Muon's weight decay"},
    {"train.muon_split", KP_CONFIG_BOOLEAN, "false", NULL,
     "packed queries, keys and values are three matrices to Muon, not one"},
    {"train.tangent", KP_CONFIG_BOOLEAN, "false", NULL,
     "of the gradients of unit rows and columns only the tangent part counts"},
    {"train.rounding", KP_CONFIG_CHOICE, "nearest", "nearest|stochastic",
     "of float32 parameters to the bfloat16 that a GPU computes with"},
    {"train.clip", KP_CONFIG_REAL, "1", "[0, 1e9]", "largest norm of the gradient; 0: no limit"},
    {"train.evaluate_every", KP_CONFIG_INTEGER, "250", "[1, 1000000000]", "steps between evaluations"},
    {"train.evaluate_batches", KP_CONFIG_INTEGER, "20", "[0, 1000000000]",
     "batches of an evaluation; 0: the whole validation text"},
    {"train.metric", KP_CONFIG_CHOICE, "auto", "auto|loss|accuracy|macro_f1|entity_f1|mcc",
     "what the best checkpoint is best in; auto: loss of language, accuracy of classes, entity F1 of tags"},
    {"train.patience", KP_CONFIG_INTEGER, "0", "[0, 1000000]",
     "evaluations without improvement before stopping; 0: never"},
    {"train.checkpoint_every", KP_CONFIG_INTEGER, "250", "[1, 1000000000]", "steps between checkpoints"},
    {"train.keep", KP_CONFIG_INTEGER, "2", "[1, 1000000]", "newest checkpoints to keep, beside the best"},
    {"train.log_every", KP_CONFIG_INTEGER, "10", "[1, 1000000000]", "steps between lines of metrics"},
    {"train.skip_limit", KP_CONFIG_INTEGER, "5", "[1, 1000000]",
     "steps in a row whose loss or gradient is not finite before the run stops"},
    {"train.seed", KP_CONFIG_INTEGER, "1337", "[0, 4503599627370496]", "of parameters, batches and dropout"},
    {"train.sampling", KP_CONFIG_CHOICE, "uniform", "uniform|sequential",
     "rows at random offsets, or every block once an epoch"},
    {"train.packing", KP_CONFIG_CHOICE, "none", "none|best_fit|helm",
     "rows of whole documents (conversations, or what data.separator separates), which do not see each "
     "other; "
     "helm: as its authors pack"},
    {"train.recompute", KP_CONFIG_CHOICE, "none", "none|activations|linears",
     "produced again in the backward pass instead of kept: less memory, more time"},
};

static const kp_config_row data_rows[] = {
    {"data.path", KP_CONFIG_STRING, "kjv_char", NULL,
     "prepared folder, or the name of a data set of `kappa data list`; of an imported model empty"},
    {"data.train", KP_CONFIG_STRING, "", NULL,
     "training tokens: a file, pattern or folder, instead of data.path's"},
    {"data.validation", KP_CONFIG_STRING, "", NULL, "validation tokens, instead of data.path's"},
    {"data.separator", KP_CONFIG_INTEGER, "-1", "[-1, 2147483647]",
     "token between documents, for train.packing; -1: that of the prepared set, if it has one"},
    {"data.positions", KP_CONFIG_CHOICE, "document", "document|row",
     "where documents share rows: positions begin at 0 in each document, or in each row"},
};

const kp_config_table kp_train_config = {train_rows, sizeof train_rows / sizeof *train_rows};
const kp_config_table kp_data_config = {data_rows, sizeof data_rows / sizeof *data_rows};

const kp_schema *kp_training_schema(void) {
  static const kp_config_table *const tables[] = {&kp_model_config,
                                                  &kp_model_curvature_config,
                                                  &kp_model_attention_config,
                                                  &kp_model_feed_forward_config,
                                                  &kp_data_config,
                                                  &kp_train_config};
  static const kp_schema schema = {tables, sizeof tables / sizeof *tables, kp_model_presets};
  return &schema;
}

static kp_adamw_options read_adamw(const kp_config *config) {
  return (kp_adamw_options){.learning_rate = kp_config_real(config, "train.learning_rate"),
                            .beta1 = kp_config_real(config, "train.beta1"),
                            .beta2 = kp_config_real(config, "train.beta2"),
                            .epsilon = kp_config_real(config, "train.epsilon"),
                            .weight_decay = kp_config_real(config, "train.weight_decay"),
                            .curvature_rate_multiplier = kp_config_real(config, "train.curvature_rate")};
}

static kp_muon_options read_muon(const kp_config *config) {
  return (kp_muon_options){.learning_rate = kp_config_real(config, "train.muon_rate"),
                           .momentum = kp_config_real(config, "train.muon_momentum"),
                           .weight_decay = kp_config_real(config, "train.muon_decay"),
                           .nesterov = kp_config_boolean(config, "train.muon_nesterov"),
                           .steps = (int)kp_config_integer(config, "train.muon_steps"),
                           .split = kp_config_boolean(config, "train.muon_split")};
}

kp_status kp_train_settings_read(const kp_config *config, kp_train_settings *s, kp_error *error) {
  *s = (kp_train_settings){
      .steps = kp_config_integer(config, "train.steps"),
      .batch = kp_config_integer(config, "train.batch"),
      .accumulate = kp_config_integer(config, "train.accumulate"),
      .clip = kp_config_real(config, "train.clip"),
      .evaluate_every = kp_config_integer(config, "train.evaluate_every"),
      .evaluate_batches = kp_config_integer(config, "train.evaluate_batches"),
      .patience = kp_config_integer(config, "train.patience"),
      .checkpoint_every = kp_config_integer(config, "train.checkpoint_every"),
      .keep = kp_config_integer(config, "train.keep"),
      .log_every = kp_config_integer(config, "train.log_every"),
      .skip_limit = kp_config_integer(config, "train.skip_limit"),
      .seed = (uint64_t)kp_config_integer(config, "train.seed"),
      .sampling = (kp_sampling)kp_config_choice(config, "train.sampling"),
      .packing = (kp_packing)kp_config_choice(config, "train.packing"),
      .separator = (int32_t)kp_config_integer(config, "data.separator"),
      .positions = (kp_row_positions)kp_config_choice(config, "data.positions"),
      .recompute = (kp_recompute)kp_config_choice(config, "train.recompute"),
      .learned = kp_learned_read(config),
      .lora = kp_lora_read(config),
  };
  s->schedule = (kp_schedule){.kind = (kp_schedule_kind)kp_config_choice(config, "train.schedule"),
                              .steps = s->steps,
                              .warmup = kp_config_integer(config, "train.warmup"),
                              .minimum = kp_config_real(config, "train.minimum"),
                              .cooldown = kp_config_real(config, "train.cooldown")};
  s->optimizer = (kp_optimizer_options){
      .kind = (kp_optimizer_kind)kp_config_choice(config, "train.optimizer"),
      .adamw = read_adamw(config),
      .muon = read_muon(config),
      .tangent = kp_config_boolean(config, "train.tangent"),
      .stochastic_rounding = kp_config_choice(config, "train.rounding") == 1,
  };
  if (s->schedule.warmup < s->steps) return KP_OK;
  if (kp_config_is_set(config, "train.warmup"))
    return kp_config_fail(config, "train.warmup", error,
                          "%lld steps of warm-up leave nothing of train.steps %lld",
                          (long long)s->schedule.warmup, (long long)s->steps);
  s->schedule.warmup = s->steps / 10;
  return KP_OK;
}

kp_status kp_train_settings_separate(const kp_config *config, int32_t separator, kp_train_settings *s,
                                     kp_error *error) {
  if (s->separator < 0) s->separator = separator;
  if (s->packing == KP_PACKING_NONE || s->separator >= 0) return KP_OK;
  return kp_config_fail(
      config, "train.packing", error,
      "documents are found by the token between them, and the data does not say which it is: "
      "set data.separator");
}

static bool learns_curvature(const kp_config *config) {
  const bool heads = kp_config_choice(config, "model.attention.score") != KP_SCORE_DOT ||
                     kp_config_choice(config, "model.attention.values") != KP_VALUES_MEAN;
  if (heads && kp_config_choice(config, "model.attention.curvature.mode") != KP_CURVATURE_FIXED) return true;
  if (kp_config_choice(config, "model.feed_forward") == KP_FEED_FORWARD_MICE) return true;
  return kp_config_choice(config, "model.residual") == KP_RESIDUAL_STEREOGRAPHIC &&
         ((kp_config_choice(config, "model.curvature.mode") != KP_CURVATURE_FIXED &&
           !kp_config_boolean(config, "model.curvature.dynamic")) ||
          kp_config_boolean(config, "model.curvature.embedding"));
}

size_t kp_training_unused_keys(const kp_config *config, const char *keys[], size_t room) {
  const bool constant = kp_config_choice(config, "train.schedule") == KP_SCHEDULE_CONSTANT;
  const kp_optimizer_kind kind = (kp_optimizer_kind)kp_config_choice(config, "train.optimizer");
  const bool muon = kind == KP_OPTIMIZER_MUON || kind == KP_OPTIMIZER_HYPERBALL_MUON;
  const bool labels = kp_config_choice(config, "model.task") != KP_TASK_LANGUAGE;
  const bool lora = kp_config_integer(config, "train.lora.rank") > 0;
  const struct {
    const char *key;
    bool unused;
  } rows[] = {{"train.cooldown", !constant},
              {"train.curvature_rate", !learns_curvature(config)},
              {"train.muon_rate", !muon},
              {"train.muon_momentum", !muon},
              {"train.muon_nesterov", !muon},
              {"train.muon_steps", !muon},
              {"train.muon_split", !muon},
              {"train.muon_decay", kind != KP_OPTIMIZER_MUON},
              {"data.separator", kp_config_choice(config, "train.packing") == KP_PACKING_NONE},
              {"train.sampling", labels},
              {"train.lora.alpha", !lora},
              {"train.lora.dropout", !lora},
              {"train.lora.targets", !lora}};
  size_t count = kp_model_unused_keys(config, keys, room);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].unused && !kp_config_is_default(config, rows[i].key) && count < room)
      keys[count++] = rows[i].key;
  return count;
}

/* Half a cosine from 1 at the end of the warm-up to 0 at the last step. */
static double cosine(const kp_schedule *s, int64_t step) {
  const double span = (double)(s->steps > s->warmup ? s->steps - s->warmup : 1);
  const double share = fmin((double)(step - s->warmup) / span, 1);
  return 0.5 * (1 + cos(acos(-1.0) * share));
}

double kp_schedule_factor(const kp_schedule *s, int64_t step) {
  if (s->kind == KP_SCHEDULE_HELM)
    return step < s->warmup ? (double)step / (double)s->warmup : 0.9 * cosine(s, step) + s->minimum;
  if (step < s->warmup) return (double)(step + 1) / (double)(s->warmup + 1);
  if (s->kind == KP_SCHEDULE_COSINE) return s->minimum + (1 - s->minimum) * cosine(s, step);
  const double start = (double)s->steps * (1 - s->cooldown);
  if ((double)step < start || s->cooldown == 0) return 1;
  const double share = fmin(((double)step - start) / ((double)s->steps * s->cooldown), 1);
  return 1 + (s->minimum - 1) * share;
}
