/* SPDX-License-Identifier: MIT */
/* System calls that fail, or kill the process, on request. Linked into a test,
 * or loaded into any program by LD_PRELOAD; the environment variable
 * NYMBL_FAULTS then has the plan. spec/wrapped_calls_spec.lua checks that these
 * are all system calls that the module makes. */
#ifndef NYMBL_FAULTS_H
#define NYMBL_FAULTS_H

#include <stdbool.h>

/* Start a plan, and count calls from 1. NULL: no faults, and nothing is
 * counted. Words, separated by blanks:
 *
 *   kill=N         the Nth call is not made: SIGKILL
 *   term=N         the same by SIGTERM
 *   fail=N:ERROR   the Nth call fails, as in fail=7:ENOSPC (close() closes)
 *   from=N:ERROR   the Nth call and all later ones fail, except wakeups
 *   CALL=ERROR     every such call fails, as in linkat=EPERM; `tmpfile` is an
 *                  openat() with O_TMPFILE
 *   short=SEED     reads and writes transfer fewer bytes than possible, and
 *                  they, fsync() and flock() are sometimes interrupted
 *
 * A wakeup is a byte that a thread of this process sends to another one, or
 * receives, on a socket or an eventfd whose two ends this process has. Nothing
 * works any more for a program whose threads cannot wake each other, so these
 * fail only once, or by their names.
 *
 * The files *.gcda, in which a build for coverage counts its lines, are exempt
 * from all plans.
 *
 * Only these are calls: of fcntl(), duplicates of descriptors; of
 * clock_gettime(), the time since the boot; of fread(), fwrite(), getc() and
 * fflush(), those of the module core.so, not those of Lua. */
void faults_plan(const char *plan);
/* The number of calls since then. */
long faults_calls(void);
/* The name of the first call that failed as the Nth or later, or NULL. */
const char *faults_struck(void);
/* A seed of random numbers: NYMBL_SEED, or `otherwise`. */
unsigned faults_seed(unsigned otherwise);
/* Until the next call with false, no call of this thread fails or is counted:
 * a test then plays the peer. */
void faults_pause(bool paused);

/* Start the plan that NYMBL_FAULTS_LATER has; end it, and write the number of
 * calls and the name of a call that failed into the file NYMBL_FAULTS_REPORT.
 * For package.loadlib() of Lua: they ignore the state and return no results. */
int faults_begin(void *state);
int faults_end(void *state);

/* If set, it is called before each call, and with "synced" and the descriptor
 * after each successful fsync(). Its own calls are not counted. For tests with
 * one thread. */
extern void (*faults_watch)(const char *call, int fd);
/* If set, this file is opened instead of the boot id's. */
extern const char *faults_boot;

#endif
