/* gpt: the GPT-2 transformer (Radford et al. 2019) as nanoGPT trains it.
 *
 *     x ← x + Attention(LN(x));   x ← x + MLP(LN(x))
 *
 * With `token_difference` the sub-layers read LN(x_t - r_t), r_t = x_{t-1} of
 * the block's input: the flat twin that differs from the mixed-curvature
 * transformer in curvature alone. */
#include "models/families.h"
#include "models/parts/parts.h"

static kp_block_geometry flat_block(kp_builder *b, int64_t layer, kp_tensor *stream) {
  (void)layer, (void)stream;
  return (kp_block_geometry){.update = KP_PROGRAM_FLAT_ADD,
                             .tangent = b->options->token_difference ? KP_PROGRAM_FLAT_DIFFERENCE : -1};
}

static void build(const kp_model_options *options, kp_parameters *parameters, kp_network *network) {
  kp_builder b = {.options = options, .parameters = parameters, .network = network, .graph = network->graph};
  const kp_residual_geometry geometry = {
      .block = flat_block, .reference = options->token_difference ? KP_CHOICE_PREVIOUS : KP_CHOICE_ORIGIN};
  kp_tensor *x = kp_part_embedding(&b);
  kp_part_head(&b, kp_part_transformer(&b, x, &geometry));
}

const kp_family kp_family_gpt = {
    .name = "gpt",
    .help = "the GPT-2 transformer; token_difference: true makes the flat twin of mixed",
    .build = build};
