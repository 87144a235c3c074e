/* SPDX-License-Identifier: MIT */
/* Descriptors 0, 1 and 2 belong to the program. */
#ifndef NYMBL_BASE_DESCRIPTOR_H
#define NYMBL_BASE_DESCRIPTOR_H

/* The same file under a number that is above 2, or -1 with errno; the old one
 * is closed. For every descriptor that is opened here. */
int nymbl__fd_high(int fd);
/* Close one; errno stays as it is. */
void nymbl__fd_close(int fd);
/* Occupy descriptors 0 to 2 where they are closed: before libcurl opens what we
 * have no hand in. */
void nymbl__fds_guard(void);

#endif
