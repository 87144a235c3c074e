/* SPDX-License-Identifier: MIT */
/* File descriptors that stay clear of stdin, stdout and stderr. */
#ifndef NYMBL_BASE_FD_H
#define NYMBL_BASE_FD_H

/* Move a descriptor to a number above 2: returns the new number, or -1 with
 * errno; the old one is closed. To be used on every descriptor that the library
 * opens. A negative fd is returned as it is. */
int nymbl__fd_avoid_stdio(int fd);
/* Close a descriptor; errno is preserved. */
void nymbl__fd_close(int fd);
/* Occupy those of descriptors 0 to 2 that are closed, so that libcurl cannot
 * get them for files that it opens by itself. */
void nymbl__fd_reserve_stdio(void);

#endif
