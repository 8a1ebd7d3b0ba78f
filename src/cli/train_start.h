/* What kappa train does and says where a run starts from another model. */
#ifndef KAPPA_CLI_TRAIN_START_H
#define KAPPA_CLI_TRAIN_START_H

#include "train/initial.h"

/* Where train.init is "hf:DIR", imports that model as the run FOLDER/init, and makes it train.init. */
kp_status kp_train_import(kp_config *config, const char *folder, bool *imported, kp_error *error);

/* Afterwards: the imported run stays where a run was made of it, and is removed where none was. */
void kp_train_import_end(const char *folder);

/* kp_train_options.initialised: prints a short list. */
void kp_print_transfers(void *context, const kp_transfers *transfers);

#endif
