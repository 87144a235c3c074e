/* SPDX-License-Identifier: MIT */
/* Jobs: long work on local files, started as transfers. */
#include "nymbl.h"

#include "base/error.h"
#include "engine/pump.h"
#include "job/digest.h"
#include "job/directory.h"
#include "job/sync.h"

#include <errno.h>
#include <fcntl.h>

static const char *engine_problem(const nymbl_engine *engine)
{
    return nymbl_engine_in_this_process(engine) && !engine->closed ? NULL
                                                                   : "engine";
}

static const char *arguments_problem(const nymbl_engine *engine,
                                     const char *path)
{
    const char *problem = engine_problem(engine);

    return problem == NULL && path == NULL ? "path" : problem;
}

/* Start a job and become its owner, even on failure. */
static nymbl_kind job_start(nymbl_transfer **out, nymbl_engine *engine,
                            nymbl__job *job, nymbl_error *err)
{
    nymbl_kind kind;

    if (job == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    kind = nymbl__transfer_new_job(out, engine, job, err);
    if (kind == NYMBL_OK)
        nymbl__pump_command(*out, NYMBL__COMMAND_START);
    return kind;
}

/* Makes a job for a path, or if that is NULL for a descriptor, whose owner it
 * becomes. */
typedef nymbl__job *job_new(const char *path, int fd);

static nymbl_kind job_start_path(nymbl_transfer **out, nymbl_engine *engine,
                                 job_new *make, const char *path,
                                 nymbl_error *err)
{
    const char *problem = arguments_problem(engine, path);

    *out = NULL;
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    return job_start(out, engine, make(path, -1), err);
}

/* The job gets a duplicate of the caller's descriptor. */
static nymbl_kind job_start_fd(nymbl_transfer **out, nymbl_engine *engine,
                               job_new *make, int fd, nymbl_error *err)
{
    const char *problem = engine_problem(engine);
    int copy;

    *out = NULL;
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* clear of stdin, stdout, stderr */
    if (copy < 0)
        return nymbl__error_set(err, NYMBL_IO, nymbl_reason_from_errno(errno));
    return job_start(out, engine, make(NULL, copy), err);
}

/* The job of a transfer if it has succeeded, or NULL. */
static nymbl__job *finished_job(const nymbl_transfer *transfer)
{
    bool finished;

    nymbl__port_lock(&transfer->port);
    finished = transfer->port.ended && transfer->port.error.kind == NYMBL_OK;
    nymbl__port_unlock(&transfer->port);
    return finished ? transfer->job : NULL;
}

nymbl_kind nymbl_digest_start(nymbl_transfer **out, nymbl_engine *engine,
                              const char *path, nymbl_error *err)
{
    return job_start_path(out, engine, nymbl__digest_job_new, path, err);
}

nymbl_kind nymbl_digest_start_fd(nymbl_transfer **out, nymbl_engine *engine,
                                 int fd, nymbl_error *err)
{
    return job_start_fd(out, engine, nymbl__digest_job_new, fd, err);
}

const nymbl_file_digest *nymbl_transfer_digest(const nymbl_transfer *transfer)
{
    const nymbl__job *job = finished_job(transfer);

    return job != NULL ? nymbl__digest_job_result(job) : NULL;
}

nymbl_kind nymbl_sync_start(nymbl_transfer **out, nymbl_engine *engine,
                            const char *path, nymbl_error *err)
{
    return job_start_path(out, engine, nymbl__sync_job_new, path, err);
}

nymbl_kind nymbl_sync_start_fd(nymbl_transfer **out, nymbl_engine *engine,
                               int fd, nymbl_error *err)
{
    return job_start_fd(out, engine, nymbl__sync_job_new, fd, err);
}

nymbl_kind nymbl_directory_start(nymbl_transfer **out, nymbl_engine *engine,
                                 const char *path, size_t max_entries,
                                 nymbl_error *err)
{
    const char *problem = arguments_problem(engine, path);

    *out = NULL;
    if (problem == NULL && max_entries > NYMBL_DIRECTORY_MAX)
        problem = "max_entries";
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    if (max_entries == 0)
        max_entries = NYMBL_DIRECTORY_DEFAULT;
    return job_start(out, engine, nymbl__directory_job_new(path, max_entries),
                     err);
}

bool nymbl_transfer_next_entry(nymbl_transfer *transfer,
                               nymbl_directory_entry *out)
{
    nymbl__job *job = finished_job(transfer);

    return job != NULL && nymbl__directory_job_is(job) &&
           nymbl__directory_job_next(job, out);
}
