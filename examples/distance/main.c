/* The same points in hyperbolic, flat and spherical space: how far apart they lie, and where their middle is.
 *
 * Build it as CMakeLists.txt says, or without CMake:
 *
 *   cc main.c $(pkg-config --cflags --libs kappa) -o distance */
#include <stdio.h>

#include <kappa/kappa.h>

enum { DIMENSIONS = 2, POINTS = 3 };

static const double points[POINTS * DIMENSIONS] = {0.1, 0.2, 0.7, -0.3, 0.4, 0.6};
static const double weights[POINTS] = {1, 1, 2};

static void print_space(const char *name, double kappa) {
  const double *first = points, *second = points + DIMENSIONS;
  double distance = kp_point_distance(DIMENSIONS, kappa, first, second);
  double middle[DIMENSIONS];
  kp_gyromidpoint(DIMENSIONS, POINTS, kappa, points, weights, middle);
  printf("%-10s  kappa %4.1f  distance %.6f  midpoint (%.6f, %.6f)\n", name, kappa, distance, middle[0],
         middle[1]);
}

int main(void) {
  printf("kappa %s\n", kp_version());
  print_space("hyperbolic", -1);
  print_space("flat", 0);
  print_space("spherical", 1);
  return 0;
}
