/* SPDX-License-Identifier: MIT */
/**
 * @file nymbl.h
 * @brief A client library for the documents of the Nymbl Customer API: upload,
 * list, get, download and delete. It runs HTTP requests with libcurl, over
 * verified TLS, without blocking.
 *
 * Ownership: an object returned through `out` is yours to release with its
 * `_free` or `_close` function. A pointer returned by a getter is borrowed: it
 * belongs to its object and is valid as long as the object. Every object
 * retains the objects that it needs, so they may be released in any order.
 *
 * A download to a path is atomic: the file appears under its name complete and
 * checked, or the path stays as it was.
 *
 * Strings passed in are copied before a function returns. All times are in
 * seconds, all sizes in bytes. Only nymbl_engine_pump() and
 * nymbl_transfer_wait() wait, and closing a line does for a moment
 * (nymbl_line_free()).
 *
 * Threads: an engine, and the transfers and bodies that were started on it, may
 * be used by only one thread at a time. By default that thread moves the
 * transfers, in nymbl_engine_pump(). nymbl_engine_start_thread() lets a
 * background thread of the engine, the I/O thread, move them instead. The only
 * function that the library calls back is the engine's clock.
 *
 * fork(): a child process must not use the objects of its parent. It may free
 * them; the parent's sockets and transfers are not affected.
 *
 * A call takes four steps: a `nymbl_*_start` function creates a transfer and
 * starts it, nymbl_engine_pump() moves it, nymbl_transfer_result() returns how
 * it ended, and nymbl_transfer_free() releases it (and cancels it if it still
 * runs).
 *
 * A transfer is a single attempt. Rate limiting, the monthly quota, retries and
 * the reuse of a token are implemented in the Lua module. So a C program has to
 *
 * - get a token (nymbl_token_start(), nymbl_token_read()), keep it for its
 *   lifetime, and get another one after NYMBL_UNAUTHORIZED;
 * - keep to the service's rate limit and monthly quota, and wait for
 *   `retry_after` seconds after NYMBL_THROTTLED;
 * - repeat a failed request if that is safe: an upload or delete that failed
 *   with `outcome_unknown` may have been carried out, so list the documents
 *   before you repeat it.
 *
 * Later versions add fields at the end of structs, and a field that is zero
 * means its default. So initialize every options struct as a whole, by name
 * (`{.path = "a.pdf"}`) or with zeros. Each such change raises the number in
 * the shared library's name (its SOVERSION), because a program needs the
 * library of the header that it was compiled with.
 */
#ifndef NYMBL_H
#define NYMBL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(NYMBL_STATIC)
#define NYMBL_API
#else
#define NYMBL_API __attribute__((visibility("default")))
#endif

#define NYMBL_VERSION "0.1.0"
/** The version as a number to compare: 0xXXYYZZ is version XX.YY.ZZ. */
#define NYMBL_VERSION_NUMBER 0x000100

/** Largest document that the service accepts ("File Size Limit" in its guide;
 * see lua/README.md, Facts about the service). */
#define NYMBL_MAX_UPLOAD_BYTES 26214400

/**
 * The result of a function. 0 is success, a negative value a failure, and a
 * positive value means that nothing failed, but there is nothing to return
 * (yet). So `kind < 0` tests for failure.
 *
 * "Any failure of an exchange" below means any negative kind except
 * NYMBL_MISUSE.
 */
typedef enum nymbl_kind {
    NYMBL_OK = 0,
    NYMBL_DONE = 1,  /**< the end: nothing more will follow */
    NYMBL_AGAIN = 2, /**< not yet: pump, then call again */

    NYMBL_BAD_REQUEST = -1,      /**< 400 */
    NYMBL_UNAUTHORIZED = -2,     /**< 401 */
    NYMBL_FORBIDDEN = -3,        /**< 403 */
    NYMBL_NOT_FOUND = -4,        /**< 404 */
    NYMBL_TOO_LARGE = -5,        /**< 413, or over the limit and not sent */
    NYMBL_UNSUPPORTED_TYPE = -6, /**< 415, or not an accepted type */
    NYMBL_THROTTLED = -7,        /**< 429 */
    NYMBL_QUOTA = -8,            /**< 429 "Limit Exceeded" */
    NYMBL_SERVER = -9,           /**< 5xx */
    NYMBL_HTTP = -10,            /**< any other status */
    NYMBL_TIMEOUT = -11,         /**< a time limit ran out */
    NYMBL_NETWORK = -12,         /**< resolve, connect, reset */
    NYMBL_TLS = -13,             /**< no verified TLS connection */
    NYMBL_TRUNCATED = -14,       /**< the response ended too early */
    NYMBL_CORRUPT = -15,  /**< wrong type, size or content of a document */
    NYMBL_PROTOCOL = -16, /**< the response violates HTTP or the API */
    NYMBL_REDIRECT = -17, /**< a redirect that was not followed */
    NYMBL_IO = -18,       /**< a local file or descriptor failed */
    NYMBL_CONTEXT = -19,  /**< waiting is not possible here (Lua only) */
    NYMBL_SETTINGS = -20, /**< settings from the environment (Lua only) */
    NYMBL_CANCELED = -21, /**< canceled by the caller */

    NYMBL_NO_MEMORY = -22,
    NYMBL_MISUSE = -23 /**< an invalid argument; `reason` names it */
} nymbl_kind;

/**
 * Details of a failure. There is nothing to release.
 *
 * Functions write it only on failure, and accept NULL. It contains nothing from
 * the request and nothing from the response but the status and Retry-After.
 */
typedef struct nymbl_error {
    nymbl_kind kind;
    /** HTTP status of the response, or of the proxy that refused (reason
     * "proxy" or "proxy_auth"); 0 if there was none. */
    int status;
    const char *reason; /**< static word for the cause, or NULL */
    /** Seconds, from Retry-After (a date is compared with the response's own
     * Date, if it has one); negative if there was none. */
    double retry_after;
    bool outcome_unknown; /**< the upload or delete may have been carried out */
} nymbl_error;

/** Largest JSON response to a call, in bytes. A longer one fails with
 * NYMBL_PROTOCOL, "response_too_long". */
#define NYMBL_RESPONSE_MAX (2u << 20)

/** Number of values in a JSON response that a decoder should accept (arrays and
 * objects count, member names do not), because decoded values take much more
 * memory than their bytes. */
#define NYMBL_RESPONSE_MAX_VALUES 20000

typedef struct nymbl_engine nymbl_engine;
typedef struct nymbl_client nymbl_client;
typedef struct nymbl_body nymbl_body;
typedef struct nymbl_transfer nymbl_transfer;
typedef struct nymbl_store nymbl_store;
typedef struct nymbl_line nymbl_line;

/**
 * The version of the library at run time. It may be newer than NYMBL_VERSION,
 * the version of the header.
 *
 * @return static text, such as "0.1.0"
 */
NYMBL_API const char *nymbl_version(void);

/* ---- kinds and reasons ---- */

/**
 * The name of a kind, such as "not_found".
 *
 * @param kind any kind
 * @return static text, never NULL
 */
NYMBL_API const char *nymbl_kind_name(nymbl_kind kind);

/**
 * A short description of a kind and of its remedy.
 *
 * @param kind any kind
 * @return static text, never NULL; "" for kinds that are no failures
 */
NYMBL_API const char *nymbl_kind_text(nymbl_kind kind);

/**
 * The words that nymbl_error.reason can be, unless the kind is NYMBL_MISUSE.
 *
 * @return static texts, with NULL behind the last one
 */
NYMBL_API const char *const *nymbl_reasons(void);

/**
 * The reason for a system error, such as "no_space".
 *
 * @param code a value of errno
 * @return static text, never NULL; "io_error" for errors without a reason of
 *         their own
 */
NYMBL_API const char *nymbl_reason_from_errno(int code);

/**
 * Compute the SHA-256 of bytes in memory.
 *
 * @param[out] out  65 bytes: 64 lower-case hexadecimal digits and a NUL
 * @param      data may be NULL if @p size is 0
 * @param      size of @p data
 */
NYMBL_API void nymbl_sha256(char *out, const void *data, size_t size);

/**
 * The number of objects that exist in this process: clients, bodies,
 * transfers, lines and stores.
 *
 * For leak checks: it is 0 once all objects are released and the I/O thread, if
 * there is one, has dropped its references.
 *
 * @return the number
 */
NYMBL_API long nymbl_object_count(void);

/**
 * Check whether libcurl's calls reach functions of another TLS library than the
 * one it was linked with (symbol interposition), so that a connection would
 * crash. Call this once, before the first transfer. The only libcurl function
 * called is curl_version_info(). On Linux with glibc every function that
 * libcurl and its TLS library refer to is checked, on other systems a sample.
 *
 * @return NULL if there is no problem, else static text that names both
 *         libraries and one of the functions, and says what to install
 */
NYMBL_API const char *nymbl_tls_problem(void);

/* ---- engine ---- */

/** Settings of an engine. Zero means default. */
typedef struct nymbl_engine_options {
    /** Returns seconds on a clock that never goes back; default
     * CLOCK_MONOTONIC. The I/O thread calls it too, if there is one. */
    double (*clock)(void *payload);
    void *payload; /**< borrowed; passed to @p clock */
} nymbl_engine_options;

/**
 * Create an engine: it holds the connections and moves the transfers.
 *
 * One per process is enough, or one per thread: its clients share its
 * connections.
 *
 * Files and sockets of the library never get descriptors 0 to 2. If the program
 * has closed one of these, the pump opens a placeholder on it, which can be
 * neither read nor written, so that libcurl does not use it either.
 *
 * @param[out] out     yours to release with nymbl_engine_free()
 * @param      options copied; NULL for defaults
 * @param[out] err     NYMBL_NO_MEMORY; NYMBL_IO, "too_many_files", if the
 *                     process cannot open more descriptors
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_engine_new(nymbl_engine **out,
                                      const nymbl_engine_options *options,
                                      nymbl_error *err);

/**
 * Cancel the transfers of an engine, close its connections and lines, and
 * release it.
 *
 * Its transfers remain valid, with the result NYMBL_CANCELED. The I/O thread,
 * if there is one, has ended when the function returns. In a forked child
 * nothing is closed, because the sockets are the parent's.
 *
 * @param engine may be NULL
 */
NYMBL_API void nymbl_engine_free(nymbl_engine *engine);

/**
 * Move the engine's transfers: send, receive and complete, then wait for the
 * network once.
 *
 * Returns as soon as any transfer is ready (nymbl_transfer_is_ready()), or
 * after @p timeout. If the engine has an I/O thread, this only waits for a
 * transfer to become ready.
 *
 * @param engine  created in this process
 * @param timeout longest time to wait, in seconds; 0 does not wait
 * @return NYMBL_OK, or NYMBL_MISUSE in a forked child
 */
NYMBL_API nymbl_kind nymbl_engine_pump(nymbl_engine *engine, double timeout);

/**
 * Start the I/O thread, a background thread that moves the engine's transfers
 * from now on.
 *
 * For a host that must not block. Apart from nymbl_engine_pump() and
 * nymbl_transfer_wait(), functions then only copy bytes and hand work to the
 * thread; canceling, closing and releasing take effect shortly after the
 * function has returned. The thread blocks all signals and ends in
 * nymbl_engine_free().
 *
 * @param      engine created in this process; if it already has a thread,
 *                    nothing is done
 * @param[out] err    NYMBL_IO, "too_many_threads", if the thread cannot be
 *                    created; NYMBL_MISUSE in a forked child
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_engine_start_thread(nymbl_engine *engine,
                                               nymbl_error *err);

/**
 * Whether an engine was created in this process, and not in its parent before a
 * fork().
 *
 * @param engine may be NULL, which returns false
 * @return true if it may be used
 */
NYMBL_API bool nymbl_engine_in_this_process(const nymbl_engine *engine);

/**
 * Whether an engine has neither transfers nor an I/O thread, so that
 * nymbl_engine_free() cancels no transfer and does not wait.
 *
 * @param engine any
 * @return true if it is idle
 */
NYMBL_API bool nymbl_engine_is_idle(const nymbl_engine *engine);

/**
 * The time on the engine's clock.
 *
 * @param engine any engine; NULL for the default clock
 * @return seconds
 */
NYMBL_API double nymbl_engine_now(const nymbl_engine *engine);

/* ---- client ---- */

/** Settings of a client. Zero means default. All strings are copied. */
typedef struct nymbl_client_options {
    const char *base_url; /**< required: https://host[:port][/prefix] */
    const char *api_key;  /**< required: sent as the x-api-key header */
    /** OAuth 2.0 client credentials (RFC 6749, section 4.4): all three, or
     * none. */
    const char *token_url;
    const char *client_id;
    const char *client_secret;
    const char *scope; /**< optional */
    /** PEM file of trusted certificates; default: libcurl's. */
    const char *ca_file;
    /** Directory of trusted certificates; default: none. */
    const char *ca_path;
    /** Proxy URL (http, https, socks…) as libcurl accepts it; "" for no proxy;
     * default: by the environment. */
    const char *proxy;
    const char *user_agent; /**< appended to the library's own */
    double connect_timeout; /**< connection timeout in seconds; default 10 */
    /** Longest time without a byte sent or received, in seconds; default 30. */
    double stall_timeout;
    int64_t max_upload_bytes; /**< default NYMBL_MAX_UPLOAD_BYTES */
    /** Transfers that run at the same time; further ones wait; default 16. */
    int max_connections;
    bool allow_http; /**< allow http:// URLs for loopback addresses */
} nymbl_client_options;

/**
 * Check a base or token URL: it must be https, or http for a loopback address
 * if that is allowed, with an ASCII host name, and without user name, query and
 * fragment.
 *
 * @param url        any text
 * @param allow_http whether http is allowed for a loopback address
 * @return NULL if it is valid, else static text such as "must begin with
 *         https://"
 */
NYMBL_API const char *nymbl_url_problem(const char *url, bool allow_http);

/**
 * Create a client: the address of the service and the credentials. Nothing is
 * sent.
 *
 * @param[out] out     yours to release with nymbl_client_free()
 * @param      options copied; secrets are wiped by nymbl_client_close()
 * @param[out] err     NYMBL_MISUSE with the option's name as reason; NYMBL_TLS,
 *                     "ca_file" or "ca_path", if it cannot be read;
 *                     NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_client_new(nymbl_client **out,
                                      const nymbl_client_options *options,
                                      nymbl_error *err);

/**
 * Cancel a client's transfers, wipe its secrets and close the connections that
 * no other open client of the engine can use. Starting a transfer for it then
 * fails with NYMBL_MISUSE.
 *
 * This affects the engine on which the client last started a transfer. Its
 * transfers on other engines continue.
 *
 * @param client may be NULL or closed
 */
NYMBL_API void nymbl_client_close(nymbl_client *client);

/**
 * Release a client. Its running transfers continue.
 *
 * @param client may be NULL
 */
NYMBL_API void nymbl_client_free(nymbl_client *client);

/**
 * The largest upload of a client.
 *
 * @param client any
 * @return bytes
 */
NYMBL_API int64_t nymbl_client_max_upload_bytes(const nymbl_client *client);

/** A kind of state that clients of the same account, or service, share. */
typedef enum nymbl_shared_state {
    NYMBL_SHARED_LIMITS, /**< rate limits and quota: by base URL and API key */
    /** A token: by token URL, client id, secret and scope. */
    NYMBL_SHARED_TOKEN,
    NYMBL_SHARED_IDS /**< ids of patients and documents: by base URL */
} nymbl_shared_state;

/**
 * The id of a client's account, under which clients share state: a SHA-256 hash
 * as 64 hexadecimal digits, which reveals nothing about the account. All
 * clients of an account have the same id.
 *
 * @param      client any open client
 * @param      which  the kind of shared state
 * @param[out] out    65 bytes: the digits and a NUL
 * @return NYMBL_OK, or NYMBL_MISUSE if the client is closed or has no
 *         credentials
 */
NYMBL_API nymbl_kind nymbl_client_account_id(const nymbl_client *client,
                                             nymbl_shared_state which,
                                             char *out);

/* ---- bodies: the content of an upload ---- */

/**
 * Create a body that is read from a file each time it is sent.
 *
 * The path must lead to a regular file (symbolic links are followed), which is
 * opened here. If its size or times have changed when its last block is about
 * to be sent, the upload is aborted: NYMBL_IO, "changed". A file that reports a
 * size of 0 is read here, because it may have content anyway, as the files of
 * /proc do.
 *
 * @param[out] out  yours to release with nymbl_body_free()
 * @param      path path of the file
 * @param[out] err  NYMBL_IO; NYMBL_TOO_LARGE if a file that reports a size of 0
 *                  has more than NYMBL_MAX_UPLOAD_BYTES; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_body_from_path(nymbl_body **out, const char *path,
                                          nymbl_error *err);

/**
 * Create a body of bytes in memory.
 *
 * @param[out] out  yours to release with nymbl_body_free()
 * @param      data copied
 * @param      size bytes
 * @param[out] err  NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_body_from_bytes(nymbl_body **out, const void *data,
                                           size_t size, nymbl_error *err);

/**
 * Create a stream: a body that the caller writes in pieces with
 * nymbl_body_write().
 *
 * If the size is unknown, up to 1 MB is buffered to determine it. A longer body
 * is sent in chunks (RFC 9112, section 7.1).
 *
 * @param[out] out  yours to release with nymbl_body_free()
 * @param      size bytes that will be written; negative if unknown
 * @param[out] err  NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_body_stream(nymbl_body **out, int64_t size,
                                       nymbl_error *err);

/**
 * Limit a stream before it is sent, so that not too much is read from its
 * source. A stream that exceeds the limit is not sent: NYMBL_TOO_LARGE.
 *
 * @param body a stream
 * @param max  bytes
 */
NYMBL_API void nymbl_body_set_limit(nymbl_body *body, int64_t max);

/**
 * How many more bytes a stream accepts: the rest of its stated size, or of its
 * limit if that is less.
 *
 * @param body a stream
 * @return bytes; INT64_MAX if it has neither
 */
NYMBL_API int64_t nymbl_body_remaining(const nymbl_body *body);

/**
 * Write bytes to the send window of a stream. Never waits.
 *
 * @param      body     a stream that is not finished
 * @param      data     copied
 * @param      size     bytes
 * @param[out] accepted number of bytes that were accepted
 * @return NYMBL_OK if every byte was accepted; NYMBL_AGAIN if the window is
 *         full; NYMBL_DONE if the transfer accepts no more (its result says
 *         why); NYMBL_MISUSE if the body is finished or is not a stream
 */
NYMBL_API nymbl_kind nymbl_body_write(nymbl_body *body, const void *data,
                                      size_t size, size_t *accepted);

/**
 * Declare that a stream is copied from a file, before the first byte of the
 * file is read. nymbl_body_finish() then checks that the file was not modified
 * meanwhile; if it was, the upload is aborted: NYMBL_IO, "changed".
 *
 * @param body a stream; other bodies are ignored
 * @param fd   borrowed until nymbl_body_finish(); ignored unless it is a
 *             regular file
 */
NYMBL_API void nymbl_body_set_source(nymbl_body *body, int fd);

/**
 * Free space in the send window of a stream.
 *
 * @param body any
 * @return bytes that nymbl_body_write() would accept now
 */
NYMBL_API size_t nymbl_body_room(const nymbl_body *body);

/**
 * Mark a stream as complete. If fewer bytes than its stated size were written,
 * the upload is aborted: NYMBL_IO, "size_mismatch". See also
 * nymbl_body_set_source().
 *
 * @param body a stream
 */
NYMBL_API void nymbl_body_finish(nymbl_body *body);

/**
 * Whether a body can be sent now. A stream of unknown size must first be
 * finished, or its buffer of 1 MB must be full.
 *
 * @param body any
 * @return true if it can
 */
NYMBL_API bool nymbl_body_is_ready(const nymbl_body *body);

/**
 * Whether a body can be sent (again) from its first byte without the caller's
 * help.
 *
 * @param body any
 * @return true for files and bytes in memory, and for a stream of which nothing
 *         was sent
 */
NYMBL_API bool nymbl_body_can_rewind(const nymbl_body *body);

/**
 * The media type of a document, by its bytes.
 *
 * @param data the whole document; its first 1,024 bytes suffice for every type
 *             but DOCX
 * @param size bytes
 * @return static text: the media type, if it is one that the service accepts
 *         (PDF, PNG, JPEG, TIFF, DOCX); "" if it is another one; NULL for a ZIP
 *         file whose type depends on further bytes
 */
NYMBL_API const char *nymbl_sniff(const void *data, size_t size);

/**
 * The media type of a body by its content, as far as that is available: all of
 * a file or of bytes in memory, and the window of a stream. It reads a few KB,
 * and the names of the entries of a ZIP file.
 *
 * @param body any
 * @return static text: the media type, if it is one that the service accepts
 *         (PDF, PNG, JPEG, TIFF, DOCX); "" if it is another one; NULL if it
 *         cannot be determined, because too few bytes were written or the body
 *         cannot be sent
 */
NYMBL_API const char *nymbl_body_type(nymbl_body *body);

/**
 * Whether the content of a body may have a media type, by the check of
 * nymbl_body_type().
 *
 * @param body         any
 * @param content_type media type; parameters are ignored
 * @return false if the content has another type; true if it has this type, or
 *         if its type cannot be determined
 */
NYMBL_API bool nymbl_body_is_type(nymbl_body *body, const char *content_type);

/**
 * The size of a body.
 *
 * @param body any
 * @return bytes, or -1 if it is unknown
 */
NYMBL_API int64_t nymbl_body_size(const nymbl_body *body);

struct stat; /* of <sys/stat.h> */

/**
 * The status of the file of a body, when the body was created.
 *
 * If it is the status that the file had before some work on it, such as
 * nymbl_digest_start(), then both are about the same content.
 *
 * @param body any
 * @return borrowed; NULL unless the body is of nymbl_body_from_path()
 */
NYMBL_API const struct stat *nymbl_body_status(const nymbl_body *body);

/**
 * Release a body. A transfer that sends it retains it.
 *
 * @param body may be NULL
 */
NYMBL_API void nymbl_body_free(nymbl_body *body);

/* ---- requests to the service ---- */

/** The method of a request. A GET changes nothing on the service, so its
 * outcome is never unknown. A DELETE may be repeated. A POST may be repeated
 * only if the service cannot have accepted it, and is sent on a new connection.
 */
typedef enum nymbl_method {
    NYMBL_GET,
    NYMBL_POST, /**< an upload */
    NYMBL_DELETE
} nymbl_method;

/** The response that a request expects. */
typedef enum nymbl_expected {
    /** JSON or nothing; it is buffered in memory, see nymbl_transfer_body(). */
    NYMBL_EXPECT_JSON,
    /** The content of a document, which is checked and saved to a path or read
     * with nymbl_transfer_read(). Redirects are followed. */
    NYMBL_EXPECT_CONTENT
} nymbl_expected;

/** A segment of a path: `/name` or `/name(key)`. */
typedef struct nymbl_segment {
    const char *name; /**< letters, digits, `$`, `_`, `-` and `.` */
    const char *key;  /**< percent-encoded by the library; NULL for no key */
} nymbl_segment;

/** A name and a value, of a query option or of a header. */
typedef struct nymbl_pair {
    const char *name;
    const char *value; /**< NULL to omit the pair */
} nymbl_pair;

/** Size of the longest token that is accepted. */
#define NYMBL_TOKEN_MAX 16384

/** A bearer token. Wipe it with nymbl_token_wipe() when it is no longer needed.
 */
typedef struct nymbl_token {
    char value[NYMBL_TOKEN_MAX + 1]; /**< visible ASCII, NUL-terminated */
    /** Lifetime in seconds, from the response on: 300 if the response does not
     * state it, and at most 24 hours. */
    double expires_in;
} nymbl_token;

/**
 * Read the token endpoint's response (RFC 6749, section 5.1), so that a program
 * needs no JSON parser for it. Allocates nothing.
 *
 * Only the members `access_token`, `token_type` and `expires_in` are used. If
 * `token_type` is missing, it is assumed to be "bearer"; `expires_in` may be a
 * string of digits.
 *
 * @param[out] out  filled in on NYMBL_OK, else wiped
 * @param      data bytes from nymbl_transfer_body(); may be NULL
 * @param      size bytes
 * @param[out] err  NYMBL_PROTOCOL, "token_response"; or "response_too_long" if
 *                  there are more than NYMBL_RESPONSE_MAX_VALUES values
 * @return NYMBL_OK, or the failure if the bytes are not a JSON object with a
 *         bearer token of visible ASCII characters
 */
NYMBL_API nymbl_kind nymbl_token_read(nymbl_token *out, const char *data,
                                      size_t size, nymbl_error *err);

/**
 * Overwrite a token with zeros.
 *
 * @param token may be NULL
 */
NYMBL_API void nymbl_token_wipe(nymbl_token *token);

/** The fields of an upload. */
typedef struct nymbl_upload_options {
    const char *file_name;     /**< required */
    const char *content_type;  /**< required */
    const char *document_type; /**< optional */
    const char *description;   /**< optional */
    /** Whether the caller can write a stream again from its first byte. If not,
     * the stream is sent with `Expect: 100-continue`. If the service responds
     * with 417, none of its bytes were sent: start the upload again with this
     * field set, provided that nymbl_body_can_rewind() returns true. */
    bool is_rewindable;
    bool progress; /**< make the transfer ready whenever bytes were sent */
} nymbl_upload_options;

/** The target of a download, and the document's metadata. */
typedef struct nymbl_download_options {
    /** File to create or replace atomically; NULL to read the content with
     * nymbl_transfer_read(). */
    const char *path;
    /** Permissions, if the file system supports them; default 0600. */
    unsigned mode;
    /** Fail if @p path exists, at the start or at the end. */
    bool no_overwrite;
    /**
     * Keep an interrupted download as a partial file beside the path, and
     * resume it next time with a range request under the saved validator (RFC
     * 9110, section 13.1.5). The base URL, API key, token URL, client id,
     * scope, patient and document must be the same. If the service refuses the
     * range ("range_refused") or its response does not continue the partial
     * file ("content_range"), the transfer fails, the partial file is removed,
     * and the next transfer starts at the first byte.
     */
    bool resume;
    /** Media type of the document; NULL if unknown. */
    const char *content_type;
    bool has_size; /**< whether @p size is known */
    int64_t size;  /**< size of the document */
    /** Make the transfer ready whenever bytes were received, and rename the
     * file to @p path only after all of them were confirmed with
     * nymbl_transfer_confirm(). */
    bool progress;
    /**
     * Read only a range of the document, not for a path. It is requested as a
     * range; if the service responds with the whole document, it is cut out of
     * that. A range behind the end of the document is empty. If the service
     * refuses the range ("range_refused") or sends another one
     * ("content_range"), the transfer fails; then start another one with
     * @p no_range_request.
     */
    int64_t offset;        /**< of the first byte; default 0 */
    bool has_length;       /**< otherwise the range extends to the end */
    int64_t length;        /**< of the range; it may be 0 */
    bool no_range_request; /**< request the whole document */
    /** A strong entity-tag (RFC 9110, section 8.8.3): the bytes of any other
     * version are NYMBL_CORRUPT, reason "changed". NULL: any version. */
    const char *if_match;
    /** Compute the SHA-256 of the whole document, also if it is resumed; not
     * for a range. */
    bool sha256;
    /** A directory in which @p path is a file name, to be created or replaced;
     * no symbolic link is followed. It must stay open until the transfer is
     * started, and cannot be descriptor 0. Default: @p path is a path. */
    int dir_fd;
} nymbl_download_options;

/** A request to the service. Zero means default. Arrays end with an entry whose
 * name is NULL; a NULL array is empty. */
typedef struct nymbl_request {
    nymbl_method method;
    nymbl_expected expected;
    const nymbl_segment *path; /**< required; appended to the base URL */
    const nymbl_pair *query;   /**< values are percent-encoded by the library */
    /** Additional headers for the service. They are not sent to another origin
     * after a redirect. Headers that the library sends itself, or that concern
     * the connection or the body, are NYMBL_MISUSE. */
    const nymbl_pair *headers;
    /** A link to request instead of @p path and @p query, from the response to
     * a request with this path (`@odata.nextLink`). It must have the service's
     * origin. */
    const char *next_link;
    /** Required for a POST; retained. It must be ready, and no other transfer
     * may be sending it. */
    nymbl_body *body;
    const nymbl_upload_options *upload; /**< required for a POST */
    /** For NYMBL_EXPECT_CONTENT; NULL for defaults. */
    const nymbl_download_options *download;
    bool inspect; /**< record what nymbl_transfer_peer() returns */
} nymbl_request;

/**
 * Start a request. The functions for documents below call this one.
 *
 * @param[out] out     yours to release with nymbl_transfer_free()
 * @param      engine  moves the transfer
 * @param      client  any open client
 * @param      token   bearer token; copied, and wiped after use
 * @param      request copied
 * @param[out] err     NYMBL_BAD_REQUEST if a key or the query is too long for a
 *                     URL; NYMBL_REDIRECT if `next_link` leaves the service's
 *                     origin, NYMBL_PROTOCOL if it is too long;
 *                     NYMBL_TOO_LARGE or NYMBL_IO if the body cannot be sent;
 *                     NYMBL_IO if the target of a download cannot be written;
 *                     NYMBL_MISUSE with the name of the invalid field as
 *                     reason;
 *                     NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_request_start(
    nymbl_transfer **out, nymbl_engine *engine, nymbl_client *client,
    const char *token, const nymbl_request *request, nymbl_error *err);

/**
 * Start a request for an access token (RFC 6749, section 4.4.2). The response
 * body is the token endpoint's JSON.
 *
 * @param[out] out    yours to release with nymbl_transfer_free()
 * @param      engine moves the transfer
 * @param      client has OAuth credentials
 * @param[out] err    NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_token_start(nymbl_transfer **out,
                                       nymbl_engine *engine,
                                       nymbl_client *client, nymbl_error *err);

/**
 * Start `POST /Patients({id})/Documents`. The response body is the document's
 * JSON.
 *
 * The request is sent once, on a new connection that resumes the TLS session: a
 * reused connection may be closing, and then the outcome would be unknown. The
 * caller decides whether to send it again, by `outcome_unknown` and
 * nymbl_body_can_rewind().
 *
 * @param[out] out     yours to release with nymbl_transfer_free()
 * @param      engine  moves the transfer
 * @param      client  any open client
 * @param      token   bearer token; copied, and wiped after use
 * @param      patient patient id; percent-encoded by the library
 * @param      body    retained; must be ready and not in use by another
 *                     transfer
 * @param      options copied
 * @param[out] err     NYMBL_TOO_LARGE; NYMBL_IO if the body cannot be rewound;
 *                     NYMBL_BAD_REQUEST if the id is too long for a URL;
 *                     NYMBL_MISUSE; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_upload_start(nymbl_transfer **out,
                                        nymbl_engine *engine,
                                        nymbl_client *client, const char *token,
                                        const char *patient, nymbl_body *body,
                                        const nymbl_upload_options *options,
                                        nymbl_error *err);

/** OData query options of a list. NULL and 0 are omitted. */
typedef struct nymbl_list_options {
    const char *filter;
    const char *select;
    const char *orderby;
    int64_t top;
    int64_t skip;
    bool count; /**< `$count=true` */
    /** `@odata.nextLink` of the previous page; replaces all of the above. */
    const char *next_link;
} nymbl_list_options;

/**
 * Start `GET /Patients({id})/Documents`. The response body is the page's JSON.
 *
 * @param[out] out     yours to release with nymbl_transfer_free()
 * @param      engine  moves the transfer
 * @param      client  any open client
 * @param      token   bearer token; copied, and wiped after use
 * @param      patient patient id; percent-encoded by the library
 * @param      options copied; values are percent-encoded by the library
 * @param[out] err     NYMBL_REDIRECT if `next_link` has another origin than the
 *                     service; NYMBL_PROTOCOL if it is too long;
 *                     NYMBL_BAD_REQUEST if the id or the query is too long;
 *                     NYMBL_MISUSE; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_list_start(nymbl_transfer **out,
                                      nymbl_engine *engine,
                                      nymbl_client *client, const char *token,
                                      const char *patient,
                                      const nymbl_list_options *options,
                                      nymbl_error *err);

/**
 * Start `GET /Patients({id})/Documents({document})`. The response body is the
 * document's JSON.
 *
 * @param[out] out      yours to release with nymbl_transfer_free()
 * @param      engine   moves the transfer
 * @param      client   any open client
 * @param      token    bearer token; copied, and wiped after use
 * @param      patient  patient id; percent-encoded by the library
 * @param      document document id; percent-encoded by the library
 * @param[out] err      NYMBL_BAD_REQUEST if an id is too long for a URL;
 *                      NYMBL_MISUSE; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_get_start(nymbl_transfer **out, nymbl_engine *engine,
                                     nymbl_client *client, const char *token,
                                     const char *patient, const char *document,
                                     nymbl_error *err);

/**
 * Check the target of a download: its directory must exist and permit creating
 * a file. The path must not be a directory, a device or a descriptor such as
 * /dev/stdout, must not lead over a symbolic link that another user placed in a
 * directory such as /tmp, and must not have the name of a temporary, partial or
 * metadata file (".nymbl-tmp-…", "….nymbl-part", "….nymbl-meta"). The check
 * leaves no file behind, and removes files that killed processes left in the
 * directory.
 *
 * @param      path         path of the file
 * @param      no_overwrite whether the file must not exist
 * @param[out] err          NYMBL_IO, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_target_check(const char *path, bool no_overwrite,
                                        nymbl_error *err);

/**
 * Remove the incomplete files that killed processes have left in a directory.
 * Files that a running process writes stay.
 *
 * A download does this for its own directory, once in a process.
 *
 * @param dir_fd descriptor of the directory
 */
NYMBL_API void nymbl_remove_leftovers(int dir_fd);

/**
 * Start `GET /Patients({id})/Documents({document})/$value`.
 *
 * Up to five redirects are followed, only to https, and without credentials
 * once the origin has changed. The content is checked against the response's
 * length, the document's size and its type before completion is reported. If
 * neither size nor type is given, the response's type or the first bytes must
 * be of a type that the service accepts. No byte can be read before the first
 * bytes were checked.
 *
 * @param[out] out      yours to release with nymbl_transfer_free()
 * @param      engine   moves the transfer
 * @param      client   any open client
 * @param      token    bearer token; copied, and wiped after use
 * @param      patient  patient id; percent-encoded by the library
 * @param      document document id; percent-encoded by the library
 * @param      options  copied; NULL for defaults
 * @param[out] err      NYMBL_IO if the target cannot be written;
 *                      NYMBL_BAD_REQUEST if an id is too long for a URL;
 *                      NYMBL_MISUSE; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_download_start(
    nymbl_transfer **out, nymbl_engine *engine, nymbl_client *client,
    const char *token, const char *patient, const char *document,
    const nymbl_download_options *options, nymbl_error *err);

/**
 * Start `DELETE /Patients({id})/Documents({document})`.
 *
 * @param[out] out      yours to release with nymbl_transfer_free()
 * @param      engine   moves the transfer
 * @param      client   any open client
 * @param      token    bearer token; copied, and wiped after use
 * @param      patient  patient id; percent-encoded by the library
 * @param      document document id; percent-encoded by the library
 * @param[out] err      NYMBL_BAD_REQUEST if an id is too long for a URL;
 *                      NYMBL_MISUSE; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_delete_start(nymbl_transfer **out,
                                        nymbl_engine *engine,
                                        nymbl_client *client, const char *token,
                                        const char *patient,
                                        const char *document, nymbl_error *err);

/* ---- transfers ---- */

/**
 * Whether something has happened since a function last returned NYMBL_AGAIN:
 * there are bytes to read, room to write, a response head, a result or
 * progress.
 *
 * @param transfer any transfer
 * @return true if another call of that function may return something else
 */
NYMBL_API bool nymbl_transfer_is_ready(nymbl_transfer *transfer);

/**
 * Pump the engine until a transfer is ready. For C programs that may block.
 *
 * @param transfer any transfer
 * @param timeout  longest time to wait, in seconds
 * @return NYMBL_OK; NYMBL_AGAIN if the time is up; NYMBL_MISUSE in a forked
 *         child
 */
NYMBL_API nymbl_kind nymbl_transfer_wait(nymbl_transfer *transfer,
                                         double timeout);

/** The status and the main fields of a response. Strings are borrowed. */
typedef struct nymbl_response {
    int status;
    /** Size of the document, range or body; -1 if unknown. */
    int64_t content_length;
    const char *content_type;  /**< NULL if there was none */
    const char *etag;          /**< NULL unless it is a strong entity-tag */
    const char *last_modified; /**< NULL unless it is an HTTP-date */
} nymbl_response;

/**
 * The response's status and head, once it is complete and valid. Never waits.
 *
 * @param      transfer any transfer
 * @param[out] out      filled in on NYMBL_OK
 * @param[out] err      details of the failure
 * @return NYMBL_OK; NYMBL_AGAIN; or any failure of an exchange
 */
NYMBL_API nymbl_kind nymbl_transfer_response(nymbl_transfer *transfer,
                                             nymbl_response *out,
                                             nymbl_error *err);

/**
 * Read bytes of the response body that have arrived.
 *
 * Never waits. Frees room in the receive window, so that the transfer can
 * continue.
 *
 * @param      transfer a download without a path
 * @param[out] buf      at least @p cap bytes
 * @param      cap      size of @p buf
 * @param[out] got      number of bytes read; 0 unless NYMBL_OK is returned
 * @param[out] err      details of the failure
 * @return NYMBL_OK; NYMBL_AGAIN if no bytes have arrived yet; NYMBL_DONE at the
 *         verified end; or any failure of an exchange
 */
NYMBL_API nymbl_kind nymbl_transfer_read(nymbl_transfer *transfer, void *buf,
                                         size_t cap, size_t *got,
                                         nymbl_error *err);

/**
 * The result of a transfer. Never waits.
 *
 * A download without a path ends only after its last byte was read.
 *
 * @param      transfer any transfer
 * @param[out] err      details of the failure
 * @return NYMBL_OK; NYMBL_AGAIN; or any failure of an exchange
 */
NYMBL_API nymbl_kind nymbl_transfer_result(nymbl_transfer *transfer,
                                           nymbl_error *err);

/**
 * The response body, if it is buffered in memory: the JSON of a call, or the
 * first 64 KB of an error response.
 *
 * @param      transfer a transfer that has ended
 * @param[out] size     number of bytes
 * @return borrowed bytes; NULL if there are none
 */
NYMBL_API const char *nymbl_transfer_body(const nymbl_transfer *transfer,
                                          size_t *size);

/** How much was sent and received so far. */
typedef struct nymbl_counts {
    bool sent;             /**< whether all or part of the request was sent */
    int64_t body_sent;     /**< bytes of the upload that libcurl has accepted */
    int64_t body_received; /**< bytes of the response body */
    int64_t resumed_from;  /**< offset in the document at which the response
                                begins: of a partial file or a range */
} nymbl_counts;

/**
 * The progress of a transfer.
 *
 * @param      transfer any transfer
 * @param[out] out      filled in
 */
NYMBL_API void nymbl_transfer_counts(nymbl_transfer *transfer,
                                     nymbl_counts *out);

/** What was learned about the server of a request with `inspect`. */
typedef struct nymbl_peer {
    /** Whether `certificate_lifetime` is known: the request was sent over TLS,
     * and libcurl uses OpenSSL. */
    bool has_certificate;
    double certificate_lifetime; /**< seconds until the certificate expires */
    bool has_date;               /**< whether the response had a valid Date */
    /** The clock of this machine minus the response's Date, in seconds. Date
     * has a resolution of one second. */
    double clock_skew;
} nymbl_peer;

/**
 * What is known about the server so far.
 *
 * @param      transfer any transfer; all is unknown unless its request had
 *                      `inspect`
 * @param[out] out      filled in
 */
NYMBL_API void nymbl_transfer_peer(nymbl_transfer *transfer, nymbl_peer *out);

/**
 * Whether a transfer waits because its client has `max_connections` others on
 * the wire. The caller is notified when such a wait begins.
 *
 * @param transfer any transfer
 * @return whether it waits
 */
NYMBL_API bool nymbl_transfer_is_queued(nymbl_transfer *transfer);

/** Bytes of the longest request id that is read. */
#define NYMBL_REQUEST_ID_MAX 128

/**
 * The service's id of the request, which its support can look up: the header
 * x-amzn-RequestId of the response, x-request-id or a similar one. If a
 * redirect leads to another origin, the service's own id remains.
 *
 * @param      transfer any transfer
 * @param[out] out      visible ASCII; "" if no response with an id has arrived.
 *                      An echo of the x-request-id that was sent is no such id
 */
NYMBL_API void nymbl_transfer_request_id(nymbl_transfer *transfer,
                                         char out[NYMBL_REQUEST_ID_MAX + 1]);

/**
 * The SHA-256 of a downloaded document.
 *
 * @param transfer any transfer
 * @return 64 hexadecimal digits, borrowed; or NULL unless the transfer was
 *         started with `sha256` and has succeeded
 */
NYMBL_API const char *nymbl_transfer_sha256(nymbl_transfer *transfer);

/**
 * Confirm received bytes, for a download to a path with `progress`: the file
 * gets its name after its last byte was confirmed. Until then the caller can
 * still cancel.
 *
 * @param transfer any transfer
 * @param received `body_received` as returned by nymbl_transfer_counts()
 */
NYMBL_API void nymbl_transfer_confirm(nymbl_transfer *transfer,
                                      int64_t received);

/**
 * Make a transfer ready at a given time. For callers that wait for a notify
 * descriptor or socket and have no timer.
 *
 * @param transfer any transfer
 * @param at       absolute time on the engine's clock; 0 to disable
 */
NYMBL_API void nymbl_transfer_wake_at(nymbl_transfer *transfer, double at);

/**
 * Set or disable a time at which a transfer is canceled, about a second late,
 * unless this function is called again before. For callers that poll
 * nymbl_transfer_is_ready(), without a notify descriptor or socket, and may end
 * without canceling.
 *
 * @param transfer any transfer
 * @param at       absolute time on the engine's clock; 0 to disable
 */
NYMBL_API void nymbl_transfer_set_watchdog(nymbl_transfer *transfer, double at);

/**
 * Get a stream socket that becomes readable when the transfer is ready, after a
 * function has returned NYMBL_AGAIN. Closing it cancels the transfer. The bytes
 * carry no information: read all of them, then call the function again.
 *
 * @param      transfer any transfer without a notify descriptor or socket
 * @param[out] out      a descriptor, yours to close; non-blocking and
 *                      close-on-exec
 * @param[out] err      NYMBL_IO
 * @return NYMBL_OK; NYMBL_DONE if the transfer has ended, so that there is
 *         nothing to wait for; or the failure
 */
NYMBL_API nymbl_kind nymbl_transfer_notify_fd(nymbl_transfer *transfer,
                                              int *out, nymbl_error *err);

/**
 * Return the descriptor of nymbl_transfer_notify_fd() without canceling the
 * transfer, for example if the event loop cannot watch it. It is closed. A new
 * one can be requested shortly after.
 *
 * @param transfer transfer that it belongs to
 * @param fd       closed here
 */
NYMBL_API void nymbl_transfer_notify_fd_release(nymbl_transfer *transfer,
                                                int fd);

/** Address and token for a connection to a transfer's notify socket. */
typedef struct nymbl_notify_socket {
    char path[64];  /**< path of a Unix stream socket */
    char token[33]; /**< to be sent first: 32 digits */
} nymbl_notify_socket;

/**
 * Get a notify socket as nymbl_transfer_notify_fd() does, but for hosts that
 * can wait only for sockets that they have connected themselves, such as nginx:
 * connect to the path and send the token. Only this process can connect, and
 * each token is valid once.
 *
 * @param      transfer any transfer without a notify descriptor or socket
 * @param[out] out      filled in
 * @param[out] err      NYMBL_IO
 * @return NYMBL_OK; NYMBL_DONE if the transfer has ended, so that there is
 *         nothing to wait for; or the failure
 */
NYMBL_API nymbl_kind nymbl_transfer_notify_socket(nymbl_transfer *transfer,
                                                  nymbl_notify_socket *out,
                                                  nymbl_error *err);

/**
 * Cancel a transfer. Its result becomes @p kind, with `outcome_unknown` if the
 * request may be carried out anyway. Does nothing if the transfer has ended.
 *
 * @param transfer any transfer
 * @param kind     NYMBL_CANCELED, NYMBL_TIMEOUT or NYMBL_IO
 * @param reason   one of nymbl_reasons(), or another static word; or NULL
 */
NYMBL_API void nymbl_transfer_cancel(nymbl_transfer *transfer, nymbl_kind kind,
                                     const char *reason);

/**
 * Release a transfer, and cancel it if it still runs.
 *
 * @param transfer may be NULL
 */
NYMBL_API void nymbl_transfer_free(nymbl_transfer *transfer);

/* ---- jobs: long work on local files ---- */

/*
 * A job is a transfer that uses no network. Readiness, notify sockets,
 * cancellation, release and fork work as for other transfers. It has no client,
 * so closing a client does not cancel it, and it has no time limit. The pump
 * runs it in steps of a few milliseconds; a cancellation takes effect between
 * two steps. The first step opens the path: if the process changes its working
 * directory before, a relative path leads to another file. The last component
 * of a path must not be a symbolic link.
 */

/** The SHA-256 of a file. */
typedef struct nymbl_file_digest {
    char sha256[65]; /**< 64 hexadecimal digits */
    int64_t size;    /**< size of the file in bytes */
} nymbl_file_digest;

/**
 * Start to compute the SHA-256 of a regular file.
 *
 * The result is NYMBL_IO, "changed", if the file was modified meanwhile.
 *
 * @param[out] out    yours to release with nymbl_transfer_free()
 * @param      engine runs the job
 * @param      path   path of the file; copied
 * @param[out] err    NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_digest_start(nymbl_transfer **out,
                                        nymbl_engine *engine, const char *path,
                                        nymbl_error *err);

/**
 * The same for an open file, wherever its position is.
 *
 * @param[out] out    yours to release with nymbl_transfer_free()
 * @param      engine runs the job
 * @param      fd     descriptor of a regular file; duplicated
 * @param[out] err    NYMBL_MISUSE, NYMBL_NO_MEMORY; NYMBL_IO if @p fd cannot be
 *                    duplicated
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_digest_start_fd(nymbl_transfer **out,
                                           nymbl_engine *engine, int fd,
                                           nymbl_error *err);

/**
 * The result of a transfer of nymbl_digest_start() or nymbl_digest_start_fd().
 *
 * @param transfer any transfer
 * @return borrowed; NULL unless nymbl_transfer_result() returns NYMBL_OK
 */
NYMBL_API const nymbl_file_digest *
nymbl_transfer_digest(const nymbl_transfer *transfer);

/**
 * Start to flush a file to disk: its bytes, and then the directory that
 * contains its name. If @p path is a directory, the names in it are flushed.
 *
 * @param[out] out    yours to release with nymbl_transfer_free()
 * @param      engine runs the job
 * @param      path   path of a regular file or a directory; copied
 * @param[out] err    NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_sync_start(nymbl_transfer **out,
                                      nymbl_engine *engine, const char *path,
                                      nymbl_error *err);

/**
 * Start to flush an open file, but not its name; or the names in an open
 * directory.
 *
 * @param[out] out    yours to release with nymbl_transfer_free()
 * @param      engine runs the job
 * @param      fd     descriptor of a regular file or a directory; duplicated
 * @param[out] err    NYMBL_MISUSE, NYMBL_NO_MEMORY; NYMBL_IO if @p fd cannot be
 *                    duplicated
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_sync_start_fd(nymbl_transfer **out,
                                         nymbl_engine *engine, int fd,
                                         nymbl_error *err);

/** The largest limit for the entries of a directory that is read. */
#define NYMBL_DIRECTORY_MAX 1000000
/** The default limit for the entries of a directory that is read. */
#define NYMBL_DIRECTORY_DEFAULT 65536

/** The kind of an entry of a directory. */
typedef enum nymbl_entry_kind {
    NYMBL_ENTRY_FILE, /**< a regular file */
    NYMBL_ENTRY_DIRECTORY,
    NYMBL_ENTRY_LINK, /**< a symbolic link; it is not followed */
    NYMBL_ENTRY_OTHER /**< a device, socket or FIFO */
} nymbl_entry_kind;

/** An entry of a directory. */
typedef struct nymbl_directory_entry {
    const char *name; /**< borrowed from the transfer */
    nymbl_entry_kind kind;
    int64_t size;    /**< size of a file in bytes */
    double modified; /**< time of the last modification, seconds since 1970 */
} nymbl_directory_entry;

/**
 * Start to read the entries of a directory, except "." and "..".
 *
 * @param[out] out         yours to release with nymbl_transfer_free()
 * @param      engine      runs the job
 * @param      path        path of the directory; copied
 * @param      max_entries limit; 0 for NYMBL_DIRECTORY_DEFAULT. If the
 *                         directory has more entries, the result is NYMBL_IO,
 *                         "too_many_entries"
 * @param[out] err         NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_directory_start(nymbl_transfer **out,
                                           nymbl_engine *engine,
                                           const char *path, size_t max_entries,
                                           nymbl_error *err);

/**
 * Get the next entry from a transfer of nymbl_directory_start(), in no
 * particular order.
 *
 * @param      transfer any transfer
 * @param[out] out      filled in if true is returned
 * @return true; false after the last entry, and unless nymbl_transfer_result()
 *         returns NYMBL_OK
 */
NYMBL_API bool nymbl_transfer_next_entry(nymbl_transfer *transfer,
                                         nymbl_directory_entry *out);

/* ---- lines: connections to a server of your own ---- */

/** Largest reply on a line, in bytes. A longer one ends the line:
 * NYMBL_PROTOCOL, "response_too_long". */
#define NYMBL_REPLY_MAX 65536
/** Requests on a line that may be without a reply at the same time. */
#define NYMBL_LINE_MAX_REQUESTS 1024
/** Their bytes altogether. */
#define NYMBL_LINE_MAX_BYTES 1048576

/** Settings of a line. Zero means default. Everything is copied. */
typedef struct nymbl_line_options {
    const char *host; /**< a name or an IP address; or else @p unix_path */
    int port;         /**< 1 to 65535; with @p host */
    bool tls;         /**< over TLS, verified as for the service */
    /** PEM file of trusted certificates; default: libcurl's. */
    const char *ca_file;
    const char *unix_path; /**< path of a Unix socket, without TLS */
    /** Bytes to send before the first request, for example a password and the
     * number of a database. They are wiped once they are not needed. */
    const void *greeting;
    size_t greeting_size;   /**< of @p greeting */
    int greeting_replies;   /**< the number of replies to @p greeting */
    double connect_timeout; /**< seconds until the line is open; default 10 */
    /** Seconds without a request after which the line closes itself; default
     * 60. */
    double idle_timeout;
} nymbl_line_options;

/**
 * Open a line: a connection on which a server answers requests in their order,
 * in RESP2, the protocol of Redis. Never waits: the pump connects.
 *
 * No proxy is used. Without TLS everything can be read and changed on the way:
 * use that only for a loopback address or a network that you trust.
 *
 * No request is sent before all replies to the greeting have arrived. If one of
 * them is an error, it becomes the reply to each request, and the line ends.
 * The line also ends, and with it all its requests, if it cannot connect, if
 * the server closes the connection, if it sends bytes that are no reply or a
 * reply to no request, and if the line is idle for too long. Then open another
 * one.
 *
 * @param[out] out     yours to release with nymbl_line_free()
 * @param      engine  holds the connection
 * @param      options copied
 * @param[out] err     NYMBL_MISUSE with the option's name as reason,
 *                     NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_line_new(nymbl_line **out, nymbl_engine *engine,
                                    const nymbl_line_options *options,
                                    nymbl_error *err);

/**
 * Whether requests can be started on a line: it has not ended, as far as the
 * pump knows.
 *
 * @param line any
 * @return true if they can; false in a forked child
 */
NYMBL_API bool nymbl_line_is_open(const nymbl_line *line);

/**
 * Start a request. Requests are sent one after the other, without waiting for
 * replies.
 *
 * The transfer's result is NYMBL_OK once the reply has arrived, also if it is
 * an error of the server; nymbl_transfer_body() returns its bytes.
 * `nymbl_counts.sent` says whether the request was sent. If the line ends, the
 * result is the failure of the connection: NYMBL_NETWORK, NYMBL_TLS,
 * NYMBL_TIMEOUT ("connect"), NYMBL_PROTOCOL, NYMBL_IO, NYMBL_NO_MEMORY, or
 * NYMBL_CANCELED ("closed") after nymbl_line_free().
 *
 * A request has no time limit of its own. If the transfer is canceled, a
 * request that was sent keeps its place: its reply is dropped when it arrives.
 *
 * @param[out] out   yours to release with nymbl_transfer_free()
 * @param      line  any
 * @param      bytes one command; copied, and wiped once it is answered
 * @param      size  of @p bytes, at least 1
 * @param[out] err   NYMBL_NETWORK, "reset", if the line has ended; NYMBL_IO,
 *                   "line_full", if too many requests have no reply
 *                   (NYMBL_LINE_MAX_REQUESTS); NYMBL_CANCELED, "forked", in a
 *                   forked child; NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_line_start(nymbl_transfer **out, nymbl_line *line,
                                      const void *bytes, size_t size,
                                      nymbl_error *err);

/**
 * Send a request without waiting for its reply, which is dropped. If the line
 * ends before it is sent, it is lost.
 *
 * If the line is open, this sends the request at once, unless the engine has an
 * I/O thread, which then does it.
 *
 * @param      line  any
 * @param      bytes one command; copied
 * @param      size  of @p bytes, at least 1
 * @param[out] err   see nymbl_line_start()
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_line_send(nymbl_line *line, const void *bytes,
                                     size_t size, nymbl_error *err);

/**
 * Close a line and release it. Its transfers that have not ended fail with
 * NYMBL_CANCELED, "closed".
 *
 * The requests of nymbl_line_send() are sent first, if that is possible without
 * waiting. Then the server has until 0.2 seconds after the last request or
 * reply to answer what was sent: a server may drop requests if the connection
 * is closed behind them. The I/O thread waits for that; without one, this
 * function does.
 *
 * @param line may be NULL
 */
NYMBL_API void nymbl_line_free(nymbl_line *line);

/* ---- store: a small file that processes share ---- */

/** Largest content of a store; a file that holds more reads as empty. */
#define NYMBL_STORE_MAX 1048576

/** The process that holds the lock of a store. */
typedef struct nymbl_store_holder {
    /** Stays the same while the same process holds the lock and writes nothing.
     */
    uint64_t fingerprint;
    /** The time at which it locked the store, in seconds since 1970 by the file
     * system's clock. */
    double since;
} nymbl_store_holder;

/**
 * Open, lock and read a file that processes share. Never waits.
 *
 * The file is created with mode 0600 if it does not exist; its directory must
 * exist. It must be a regular file (no link) that is owned by this user, has no
 * other name, and is not writable by others. It is close-on-exec. Other
 * processes cannot use the store while it is open, so close it without waiting
 * for anything.
 *
 * @param[out] out    yours to release with nymbl_store_close(), which unlocks
 * @param      path   path of the file; copied
 * @param[out] holder filled in on NYMBL_AGAIN; may be NULL
 * @param[out] err    NYMBL_IO, NYMBL_NO_MEMORY
 * @return NYMBL_OK; NYMBL_AGAIN if another process holds the lock; or the
 *         failure
 */
NYMBL_API nymbl_kind nymbl_store_open(nymbl_store **out, const char *path,
                                      nymbl_store_holder *holder,
                                      nymbl_error *err);

/**
 * The content of the file when it was locked. It is empty if the file was not
 * written completely, or not by nymbl_store_write().
 *
 * @param      store any
 * @param[out] size  number of bytes
 * @return borrowed bytes; NULL if there are none
 */
NYMBL_API const char *nymbl_store_content(const nymbl_store *store,
                                          size_t *size);

/**
 * Replace the content. It is not flushed to disk: after a power failure the
 * file may hold older content, or none.
 *
 * @param      store any
 * @param      data  copied
 * @param      size  bytes
 * @param[out] err   NYMBL_TOO_LARGE over NYMBL_STORE_MAX, NYMBL_IO,
 *                   NYMBL_NO_MEMORY
 * @return NYMBL_OK; NYMBL_AGAIN if another process broke the lock
 *         (nymbl_store_break_lock()), so that this content is lost: close the
 *         store and start again; or the failure
 */
NYMBL_API nymbl_kind nymbl_store_write(nymbl_store *store, const void *data,
                                       size_t size, nymbl_error *err);

/**
 * Unlock and close a store.
 *
 * @param store may be NULL
 */
NYMBL_API void nymbl_store_close(nymbl_store *store);

/**
 * Break the lock of a process that has held it for too long, for example
 * because it was stopped: the file is replaced by an unlocked copy. Later
 * writes by that process are lost; its nymbl_store_write() returns NYMBL_AGAIN.
 *
 * Does nothing if the lock was released or has another holder by now. If two
 * processes break a lock at the same moment, a write between them may be lost.
 *
 * @param      path        path of the file
 * @param      fingerprint the holder's, as returned by nymbl_store_open()
 * @param[out] err         NYMBL_IO, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_store_break_lock(const char *path,
                                            uint64_t fingerprint,
                                            nymbl_error *err);

/** Size of a boot id, including the NUL. */
#define NYMBL_BOOT_ID_SIZE 37

/**
 * The time since the machine booted, including suspend (CLOCK_BOOTTIME): a
 * clock that all processes share and that cannot be set.
 *
 * @param[out] id the id of this boot; "" if the system has no such clock or id.
 *                Then the function returns the wall clock, seconds since 1970
 * @return seconds
 */
NYMBL_API double nymbl_boot_clock(char id[NYMBL_BOOT_ID_SIZE]);

#ifdef __cplusplus
}
#endif

#endif
