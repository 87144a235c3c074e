/* SPDX-License-Identifier: MIT */
/* System calls that fail, or kill the process, on request. Linked into a test,
 * or loaded into any program by LD_PRELOAD; the environment variable
 * NYMBL_FAULTS then has the plan. */
#ifndef NYMBL_FAULTS_H
#define NYMBL_FAULTS_H

/* Start a plan, and count calls from 1. NULL: no faults, and nothing is
 * counted. Words, separated by blanks:
 *
 *   kill=N         the Nth call is not made: SIGKILL
 *   term=N         the same by SIGTERM
 *   fail=N:ERROR   the Nth call fails, as in fail=7:ENOSPC (close() closes)
 *   from=N:ERROR   the Nth call and all later ones fail
 *   CALL=ERROR     every such call fails, as in linkat=EPERM; `tmpfile` is an
 *                  openat() with O_TMPFILE
 *   short=SEED     reads and writes transfer fewer bytes than possible, and
 *                  they, fsync() and flock() are sometimes interrupted */
void faults_plan(const char *plan);
/* The number of calls since then. */
long faults_calls(void);
/* The name of the Nth call if it failed, or else NULL. */
const char *faults_struck(void);

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
