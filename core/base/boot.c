/* SPDX-License-Identifier: MIT */
/* The time since the machine booted, and the id of that boot. */
#include "nymbl.h"

#include "base/fd.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

double nymbl_boot_clock(char id[NYMBL_BOOT_ID_SIZE])
{
    struct timespec now = {0};
    ssize_t got = -1;

    id[0] = '\0';
#ifdef CLOCK_BOOTTIME
    int fd = nymbl__fd_avoid_stdio(
        open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));

    if (fd >= 0) {
        got = read(fd, id, NYMBL_BOOT_ID_SIZE - 1);
        close(fd);
    }
    if (got == NYMBL_BOOT_ID_SIZE - 1 &&
        clock_gettime(CLOCK_BOOTTIME, &now) == 0) {
        id[NYMBL_BOOT_ID_SIZE - 1] = '\0';
        return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    }
#endif
    (void)got;
    id[0] = '\0';
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
