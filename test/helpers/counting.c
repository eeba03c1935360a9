/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled into the helper in place of malloc, free and memcpy: counts, and fails the Nth allocation. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 4096 }; /* bytes; more than a row */

atomic_long counting_allocations, counting_kept, counting_large_copies;
atomic_long counting_first_failure; /* the number of the first allocation that fails; 0: none does */
atomic_long counting_failures;      /* how many fail from there on */

void *counting_malloc(size_t size) {
  const long number = ++counting_allocations - counting_first_failure;
  if (counting_first_failure && number >= 0 && number < counting_failures) return NULL;
  ++counting_kept;
  return malloc(size);
}

void counting_free(void *memory) {
  --counting_kept;
  free(memory);
}

void *counting_memcpy(void *to, const void *from, size_t size) {
  if (size >= LARGE) ++counting_large_copies;
  return memcpy(to, from, size);
}
