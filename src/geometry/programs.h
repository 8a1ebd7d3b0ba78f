/* All row programs; programs.def is their table, row_program.h the contract. */
#ifndef KAPPA_GEOMETRY_PROGRAMS_H
#define KAPPA_GEOMETRY_PROGRAMS_H

#include "geometry/programs_point.h"
#include "geometry/programs_residual.h"
#include "geometry/programs_upstream.h"

#endif
