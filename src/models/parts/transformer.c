/* The residual stream of a pre-norm transformer in a space of any curvature.
 *
 * Between two sub-layers stands a seam (the operator residual_norm): it adds
 * the last branch to the stream, takes the tangent vector of the result at
 * the reference point, and normalises it for the next sub-layer:
 *
 *     x' = x ⊕ u,   z = log_r(x'),   y = norm(z)
 *
 * The flat model is the same code with x' = x + u and z = x' (or x' - r for
 * the token difference).  The reference point of a block is fixed at its
 * entry; with the previous token as reference, row t of it is row t-1 of the
 * block's input, which the seam reads in place, unless rows hold several
 * documents, whose first tokens have no previous one. */
#include <stdio.h>

#include "core/assert.h"
#include "models/parts/parts.h"

typedef struct stack {
  kp_builder *b;
  const kp_residual_geometry *geometry;
  kp_block_geometry block; /* of the current block */
  kp_tensor *entry;        /* the stream at the current block's entry */
  kp_tensor *reference;    /* its reference points, or NULL: the origin */
  bool shift;              /* the reference of row t is row t-1 of `reference` */
  kp_tensor *carry;        /* in decoding: the row before the first, or NULL */
} stack;

static kp_residual_norm_arguments seam_arguments(const stack *s, int update, int tangent) {
  return (kp_residual_norm_arguments){.update = update,
                                      .tangent = tangent,
                                      .shift = s->shift,
                                      .length = s->b->network->build.length,
                                      .norm = s->b->options->norm,
                                      .epsilon = s->b->options->norm_epsilon};
}

/* Without a norm a sub-layer reads the stream itself. */
static kp_seam_result seam(stack *s, kp_seam operands, kp_residual_norm_arguments arguments) {
  if (arguments.update < 0 && arguments.norm == KP_NORM_NONE)
    return (kp_seam_result){.stream = operands.stream, .normalised = operands.stream};
  kp_seam_result result = kp_residual_norm(s->b->graph, operands, arguments);
  if (result.normalised == NULL) result.normalised = result.stream;
  if (operands.update_curvature != NULL || operands.tangent_curvature != NULL) {
    kp_graph_keep(result.events);
    s->b->network->events[s->b->network->event_count++] = result.events;
  }
  return result;
}

/* In decoding: the stream rows before the new ones, kept from step to step. */
static kp_tensor *history(stack *s, int64_t layer, int64_t rows) {
  if (!kp_builder_decodes(s->b)) return NULL;
  char name[64];
  snprintf(name, sizeof name, "h.%lld.history", (long long)layer);
  return kp_graph_state(s->b->graph, name, KP_TYPE_REAL, 3,
                        (int64_t[]){s->b->network->build.batch, rows, s->b->options->width});
}

/* The reference points of a block whose input is `stream`, when it is not simply the previous row. */
static kp_tensor *reference_points(stack *s, kp_tensor *stream, kp_tensor *rows) {
  static const kp_reference_kind kinds[] = {[KP_CHOICE_PREVIOUS] = KP_REFERENCE_PREVIOUS,
                                            [KP_CHOICE_MEAN] = KP_REFERENCE_MEAN,
                                            [KP_CHOICE_MIDPOINT] = KP_REFERENCE_MIDPOINT};
  kp_reference_arguments arguments = {.kind = kinds[s->geometry->reference],
                                      .length = s->b->network->build.length,
                                      .window = s->b->options->window};
  kp_tensor *curvature = s->geometry->reference == KP_CHOICE_MIDPOINT ? s->block.curvature : NULL;
  return kp_reference(s->b->graph, stream, curvature, rows, rows == NULL ? NULL : s->b->network->start,
                      kp_part_borders(s->b), arguments);
}

static int64_t history_rows(const stack *s) {
  return s->geometry->reference == KP_CHOICE_MIDPOINT ? s->b->options->window : 1;
}

/* The state is read by the block's operators, so it moves on after the last of them. */
static void leave_block(stack *s) {
  if (s->carry == NULL) return;
  const bool mean = s->geometry->reference == KP_CHOICE_MEAN;
  kp_store_rows(s->b->graph, s->entry, s->carry, mean ? s->b->network->start : NULL, mean);
}

/* The update by a branch without a norm, for a block whose geometry needs the finished stream. */
static kp_tensor *update_only(stack *s, kp_tensor *stream, kp_tensor *branch) {
  kp_seam operands = {.stream = stream,
                      .branch = branch,
                      .reference = s->reference,
                      .update_curvature = s->block.curvature,
                      .carry = s->shift ? s->carry : NULL};
  kp_residual_norm_arguments arguments = seam_arguments(s, s->block.update, -1);
  arguments.norm = KP_NORM_NONE;
  stream = seam(s, operands, arguments).stream;
  leave_block(s);
  return stream;
}

/* The operands of the norm in front of attention. */
static void attention_norm(stack *s, int64_t layer, kp_seam *operands) {
  char name[64];
  kp_graph_scope(s->b->graph, "transformer.h.%lld.ln_1", (long long)layer);
  snprintf(name, sizeof name, "transformer.h.%lld.ln_1", (long long)layer);
  kp_part_norm_parameters(s->b, name, &operands->weight, &operands->bias);
  operands->tangent_curvature = s->block.tangent < 0 ? NULL : s->block.curvature;
}

/* Enters block `layer` with a finished stream. */
static kp_seam_result enter_with_stream(stack *s, int64_t layer, kp_tensor *stream) {
  s->block = s->geometry->block(s->b, layer, stream);
  kp_seam operands = {.stream = stream};
  attention_norm(s, layer, &operands);
  s->shift =
      s->block.tangent >= 0 && s->geometry->reference == KP_CHOICE_PREVIOUS && kp_part_borders(s->b) == NULL;
  s->carry = s->block.tangent < 0 ? NULL : history(s, layer, history_rows(s));
  s->reference = s->block.tangent < 0 ? NULL : s->shift ? stream : reference_points(s, stream, s->carry);
  operands.reference = s->reference;
  operands.carry = s->shift ? s->carry : NULL;
  return seam(s, operands, seam_arguments(s, -1, s->block.tangent));
}

/* Enters block `layer` in one seam with the update by the last block's branch: the reference point, where
 * there is one, is the previous row of the very stream that the seam makes. */
static kp_seam_result enter_with_branch(stack *s, int64_t layer, kp_tensor *stream, kp_tensor *branch) {
  kp_seam operands = {.stream = stream,
                      .branch = branch,
                      .reference = s->reference,
                      .update_curvature = s->block.curvature,
                      .carry = s->shift ? s->carry : NULL};
  kp_residual_norm_arguments arguments = seam_arguments(s, s->block.update, -1);
  s->block = s->geometry->block(s->b, layer, NULL);
  attention_norm(s, layer, &operands);
  arguments.tangent = s->block.tangent;
  arguments.own = s->block.tangent >= 0;
  operands.own_carry = arguments.own ? history(s, layer, 1) : NULL;
  kp_seam_result result = seam(s, operands, arguments);
  leave_block(s);
  s->shift = arguments.own;
  s->carry = operands.own_carry;
  s->reference = arguments.own ? result.stream : NULL;
  return result;
}

/* Finishes the update by the last block's branch (NULL before the first block) and enters block `layer`.
 * Returns the normalised input of its attention. */
static kp_tensor *enter_block(stack *s, int64_t layer, kp_tensor *stream, kp_tensor *branch) {
  const bool needs_stream = s->geometry->depends_on_stream || s->geometry->reference == KP_CHOICE_MEAN ||
                            s->geometry->reference == KP_CHOICE_MIDPOINT ||
                            (s->geometry->reference == KP_CHOICE_PREVIOUS && kp_part_borders(s->b) != NULL);
  kp_seam_result result;
  if (branch == NULL || needs_stream) {
    if (branch != NULL) stream = update_only(s, stream, branch);
    result = enter_with_stream(s, layer, stream);
  } else {
    result = enter_with_branch(s, layer, stream, branch);
  }
  s->entry = result.stream;
  s->b->network->curvature[layer] = s->block.curvature;
  if (s->block.curvature != NULL) kp_graph_keep(s->block.curvature);
  return result.normalised;
}

/* Between attention and feed-forward of one block. */
static kp_seam_result middle_of_block(stack *s, int64_t layer, kp_tensor *stream, kp_tensor *branch) {
  char name[64];
  kp_graph_scope(s->b->graph, "transformer.h.%lld.ln_2", (long long)layer);
  snprintf(name, sizeof name, "transformer.h.%lld.ln_2", (long long)layer);
  kp_seam operands = {.stream = stream,
                      .branch = branch,
                      .reference = s->reference,
                      .update_curvature = s->block.curvature,
                      .tangent_curvature = s->block.tangent < 0 ? NULL : s->block.curvature,
                      .carry = s->shift ? s->carry : NULL};
  kp_part_norm_parameters(s->b, name, &operands.weight, &operands.bias);
  return seam(s, operands, seam_arguments(s, s->block.update, s->block.tangent));
}

/* After the last block: the update, and the final norm of the stream itself. */
static kp_seam_result leave_stack(stack *s, kp_tensor *stream, kp_tensor *branch) {
  kp_graph_scope(s->b->graph, "transformer.ln_f");
  kp_seam operands = {.stream = stream,
                      .branch = branch,
                      .reference = s->reference,
                      .update_curvature = s->block.curvature,
                      .carry = s->shift ? s->carry : NULL};
  kp_part_norm_parameters(s->b, "transformer.ln_f", &operands.weight, &operands.bias);
  kp_seam_result result = seam(s, operands, seam_arguments(s, s->block.update, -1));
  leave_block(s);
  return result;
}

kp_point kp_part_transformer(kp_builder *b, kp_point start, const kp_residual_geometry *geometry) {
  stack s = {.b = b, .geometry = geometry};
  const int64_t layers = b->options->layers;
  kp_tensor *x = start.space, *branch = NULL;
  for (int64_t layer = 0; layer < layers; layer++) {
    kp_tensor *y = enter_block(&s, layer, x, branch);
    kp_part_keep_hidden(b, layer, s.entry);
    kp_point attended = kp_part_attention(b, layer, (kp_point){.space = y});
    kp_seam_result middle = middle_of_block(&s, layer, s.entry, attended.space);
    branch = kp_part_feed_forward(b, layer, (kp_point){.space = middle.normalised}).space;
    x = middle.stream;
  }
  kp_seam_result end = leave_stack(&s, x, branch);
  kp_part_keep_hidden(b, layers, end.stream);
  return (kp_point){.space = end.normalised};
}
