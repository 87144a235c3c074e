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

#endif
