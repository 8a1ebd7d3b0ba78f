/* Embedding, attention, feed-forward and head, with the parameter names of nanoGPT (Radford et al. 2019 for
 * the sizes). */
#include <math.h>
#include <stdio.h>

#include "data/batches.h"
#include "models/parts/parts.h"

static kp_tensor *token_table(kp_builder *b) {
  return kp_part_parameter(b, "transformer.wte.weight", KP_GROUP_TABLE, kp_initial_weight(), 2,
                           (int64_t[]){b->options->vocabulary, b->options->width});
}

static kp_tensor *dropout(kp_builder *b, kp_tensor *x) {
  if (b->network->build.mode != KP_BUILD_TRAIN) return x;
  return kp_dropout(b->graph, x, b->options->dropout, b->dropouts++);
}

kp_tensor *kp_part_embedding(kp_builder *b) {
  kp_graph_scope(b->graph, "transformer.wte");
  kp_tensor *positions = NULL, *table = NULL, *tokens = token_table(b);
  if (b->options->positions == KP_POSITIONS_LEARNED) {
    positions = b->network->positions;
    table = kp_part_parameter(b, "transformer.wpe.weight", KP_GROUP_TABLE, kp_initial_weight(), 2,
                              (int64_t[]){b->options->context, b->options->width});
  }
  return dropout(b, kp_embedding(b->graph, b->network->tokens, tokens, positions, table));
}

/* The caches of one block: room for the whole context. */
static kp_tensor *cache(kp_builder *b, int64_t layer, const char *what) {
  const kp_model_options *o = b->options;
  char name[64];
  snprintf(name, sizeof name, "h.%lld.%s", (long long)layer, what);
  return kp_graph_state(b->graph, name, KP_TYPE_REAL, 4,
                        (int64_t[]){b->network->build.batch, o->heads, o->context, o->width / o->heads});
}

kp_tensor *kp_part_attention(kp_builder *b, int64_t layer, kp_tensor *y) {
  const kp_model_options *o = b->options;
  char name[64];
  kp_graph_scope(b->graph, "transformer.h.%lld.attn", (long long)layer);
  snprintf(name, sizeof name, "transformer.h.%lld.attn.c_attn", (long long)layer);
  kp_tensor *qkv = kp_part_linear(b, y, name, 3 * o->width, o->bias, kp_initial_weight());
  qkv->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  kp_part_stacked(b, name, 3);
  const int head_size = (int)(o->width / o->heads);
  if (o->positions == KP_POSITIONS_ROTARY)
    qkv = kp_rotary(b->graph, qkv, b->network->positions,
                    (kp_rotary_arguments){.heads = 2 * (int)o->heads, .head_size = head_size, .base = 10000});
  kp_attention_arguments arguments = {.batch = b->network->build.batch,
                                      .length = b->network->build.length,
                                      .heads = (int)o->heads,
                                      .kv_heads = (int)o->heads,
                                      .head_size = head_size,
                                      .packed = true,
                                      .causal = true,
                                      .score = KP_SCORE_DOT,
                                      .scale = 1 / sqrt(head_size)};
  kp_tensor *out = kp_builder_decodes(b) ? kp_attention_cached(b->graph, qkv, cache(b, layer, "keys"),
                                                               cache(b, layer, "values"), b->network->start,
                                                               NULL, NULL, arguments)
                                         : kp_attention(b->graph, qkv, NULL, NULL, NULL, NULL, arguments);
  snprintf(name, sizeof name, "transformer.h.%lld.attn.c_proj", (long long)layer);
  if (o->output_projection) {
    out = kp_part_linear(b, out, name, o->width, o->bias, kp_initial_projection(o));
  } else if (o->variant ==
             KP_VARIANT_UPSTREAM) { /* the published model keeps the matrix that it does not apply */
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    kp_part_unused_parameter(b, full, KP_GROUP_DECAY, kp_initial_projection(o), 2,
                             (int64_t[]){o->width, o->width});
    snprintf(full, sizeof full, "%s.bias", name);
    if (o->bias) kp_part_unused_parameter(b, full, KP_GROUP_NO_DECAY, kp_initial_of(0), 1, &o->width);
  }
  return dropout(b, out);
}

kp_tensor *kp_part_feed_forward(kp_builder *b, int64_t layer, kp_tensor *y) {
  const kp_model_options *o = b->options;
  char name[64];
  kp_graph_scope(b->graph, "transformer.h.%lld.mlp", (long long)layer);
  snprintf(name, sizeof name, "transformer.h.%lld.mlp.c_fc", (long long)layer);
  kp_tensor *wide = kp_part_linear(b, y, name, 4 * o->width, o->bias, kp_initial_weight());
  wide->recompute = o->recompute >= KP_RECOMPUTE_LINEARS;
  kp_tensor *active = kp_activation(b->graph, wide, o->activation);
  active->recompute = o->recompute >= KP_RECOMPUTE_ACTIVATIONS;
  snprintf(name, sizeof name, "transformer.h.%lld.mlp.c_proj", (long long)layer);
  return dropout(b, kp_part_linear(b, active, name, o->width, o->bias, kp_initial_projection(o)));
}

void kp_part_head(kp_builder *b, kp_tensor *y) {
  kp_network *network = b->network;
  kp_graph_scope(b->graph, "lm_head");
  if (kp_builder_decodes(b)) y = kp_select_row(b->graph, y, -1);
  network->logits = kp_linear(b->graph, y, token_table(b), NULL);
  if (network->targets == NULL || network->build.keep_logits) kp_graph_keep(network->logits);
  if (network->targets == NULL) return;
  network->loss = kp_cross_entropy(b->graph, network->logits, network->targets, KP_IGNORE);
  kp_graph_keep(network->loss);
}
