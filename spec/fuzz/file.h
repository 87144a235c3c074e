/* SPDX-License-Identifier: MIT */
/* A directory for targets whose input is the content of a file. */
#ifndef NYMBL_FUZZ_FILE_H
#define NYMBL_FUZZ_FILE_H

#include <stddef.h>

/* Make the directory, which is removed at the end of the process, and the
 * names' paths. */
void files_open(void);
/* The path of a file in it. */
const char *file_path(const char *name);
int files_dir(void);
void file_put(const char *name, const void *data, size_t size);
/* Bytes of the file, to be freed. */
char *file_get(const char *name, size_t *size);

#endif
