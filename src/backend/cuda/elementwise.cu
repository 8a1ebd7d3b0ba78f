/* Operators on elements: add, zero, scale, sum. */
#include "backend/cuda/kernel.cuh"

