/* An analysis as tables for a terminal. */
#ifndef KAPPA_CLI_ANALYZE_TABLES_H
#define KAPPA_CLI_ANALYZE_TABLES_H

#include "study/analyze.h"

void kp_print_analysis(const kp_analysis *analysis);

#endif
