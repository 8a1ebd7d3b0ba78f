/* The sub-commands of `kappa data`. */
#ifndef KAPPA_CLI_DATA_H
#define KAPPA_CLI_DATA_H

#include "data/prepared.h"

int kp_data_list(int argc, char **argv);
int kp_data_get(int argc, char **argv);
int kp_data_prepare(int argc, char **argv);
int kp_data_show(int argc, char **argv);
int kp_data_convert(int argc, char **argv);

/* `kappa data prepare --task dialogue` has options of its own. */
bool kp_data_asks_for_dialogue(int argc, char **argv);
int kp_data_prepare_dialogue(int argc, char **argv);

/* "kjv_char: 3,963,971 + 440,441 tokens, 73 characters, in data/kjv_char" */
void kp_print_prepared(const kp_prepared *prepared, const char *folder, bool fresh);

#endif
