/* Sets of the catalogue that are token files already. */
#ifndef KAPPA_DATA_CATALOGUE_SHARDS_H
#define KAPPA_DATA_CATALOGUE_SHARDS_H

#include "data/catalogue.h"

/* Fetches the shard for validation and as many for training as are asked for into source/, and prepares the
 * folder: its token files are links to them.  More can be asked for later; those that are there stay. */
kp_status kp_catalogue_prepare_shards(const kp_data_set *set, const kp_catalogue_options *options,
                                      const char *tokenizer, kp_catalogue_report *report, kp_error *error);

#endif
