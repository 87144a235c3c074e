/* SPDX-License-Identifier: MIT */
/* File descriptors that stay clear of stdin, stdout and stderr. */
#ifndef NYMBL_BASE_FD_H
#define NYMBL_BASE_FD_H

/* Move a descriptor to a number above 2 and close the old number. Every
 * descriptor that the library opens passes through this function; a negative
 * one is returned unchanged. Returns the new number, or -1 with errno. */
int nymbl__fd_avoid_stdio(int fd);
/* Close a descriptor; errno is preserved. */
void nymbl__fd_close(int fd);
/* Open placeholders on those of the numbers 0 to 2 that are closed, so that
 * files which libcurl opens by itself cannot get them. */
void nymbl__fd_reserve_stdio(void);

#endif
