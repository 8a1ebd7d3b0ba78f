/* A fresh folder under /tmp for the files of one test.
 *
 * Use as setup and teardown of a test:
 *   cmocka_unit_test_setup_teardown(test, temporary_create, temporary_remove)
 * Inside, temporary_path(state, "name") gives a path in the folder. */
#ifndef KAPPA_TESTS_TEMPORARY_H
#define KAPPA_TESTS_TEMPORARY_H

#include <stddef.h>

int temporary_create(void **state);
int temporary_remove(void **state);

/* "folder/name"; "" gives the folder itself.  The text lives until the test
 * ends. */
const char *temporary_path(void **state, const char *name);

/* Writes a file in plain C, without the code under test. */
void temporary_write(const char *path, const void *data, size_t size);

/* Number of names in a folder, without "." and "..". */
size_t temporary_count(const char *path);

#endif
