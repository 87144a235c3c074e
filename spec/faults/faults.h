/* SPDX-License-Identifier: MIT */
/* System calls that fail, or kill the process, when a test wants it. Linked
 * into a test, or loaded into any program by LD_PRELOAD; then the plan is that
 * of the environment variable NYMBL_FAULTS. */
#ifndef NYMBL_FAULTS_H
#define NYMBL_FAULTS_H

/* Begin a plan, and count calls from 1. NULL: no faults, and nothing counted.
 * Words, separated by blanks:
 *
 *   kill=N         the Nth call is not made: SIGKILL
 *   fail=N:ERROR   the Nth call fails, as in fail=7:ENOSPC (close() closes)
 *   CALL=ERROR     every such call fails, as in linkat=EPERM; `tmpfile` is an
 *                  openat() with O_TMPFILE
 *   short=SEED     reads and writes do less than they could, and they, fsync()
 *                  and flock() are interrupted at times
 */
void faults_plan(const char *plan);
/* Calls since then. */
long faults_calls(void);
/* Name of the Nth call, if it failed; else NULL. */
const char *faults_struck(void);

/* If it is set: told of each call before it is made, and, as "synced" and with
 * the descriptor, of each fsync() that has gone well. What it calls itself is
 * not counted. For tests with one thread. */
extern void (*faults_watch)(const char *call, int fd);
/* If it is set: the file that is opened in place of the boot's id. */
extern const char *faults_boot;

#endif
