/* Distances and midpoints of the same points in hyperbolic, flat and spherical space.
 *
 * Three points of the plane are read as points of each space.  With falling curvature there is more room:
 * the same coordinates lie farther apart, and the middle of the points moves.
 *
 * Build it as CMakeLists.txt says, or without CMake:
 *
 *   cc main.c $(pkg-config --cflags --libs kappa) -o distance */
#include <stdio.h>

#include <kappa/kappa.h>

enum { DIMENSIONS = 2, POINTS = 3 };

static const double points[POINTS * DIMENSIONS] = {
    0.1, 0.2,  /* */
    0.7, -0.3, /* */
    0.4, 0.6,  /* */
};
static const double weights[POINTS] = {1, 1, 2};

static void print_space(const char *name, double kappa) {
  const double *a = points, *b = points + DIMENSIONS;
  double middle[DIMENSIONS], way[DIMENSIONS];
  kp_gyromidpoint(DIMENSIONS, POINTS, kappa, points, weights, middle);

  /* A unit of length on the way from a to b, half of it in coordinates of the origin's metric. */
  double distance = kp_point_distance(DIMENSIONS, kappa, a, b);
  kp_geodesic_point(DIMENSIONS, kappa, 1 / distance, a, b, way);
  printf("%-10s kappa %4.1f  distance %.6f  midpoint (%.6f, %.6f)  one step gone %.6f\n", name, kappa, distance,
         middle[0], middle[1], kp_point_distance(DIMENSIONS, kappa, a, way));
}

int main(void) {
  printf("kappa %s\n", kp_version());
  print_space("hyperbolic", -1);
  print_space("flat", 0);
  print_space("spherical", 1);
  return 0;
}
