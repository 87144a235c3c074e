/* SPDX-License-Identifier: MIT */
/* The TLS library that libcurl brings: whether it is the one that is called,
 * and what only it knows of a connection. */
#include "exchange/tls.h"

#include "exchange/imports.h"

#include <dlfcn.h>
#ifdef __GLIBC__
#include <link.h>
#endif
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* SSL_RECEIVED_SHUTDOWN (OpenSSL, SSL_get_shutdown(3)): close_notify has come.
 */
#define RECEIVED_SHUTDOWN 2

/* libcurl reports a connection that was cut and one that was closed alike, and
 * reuses one whose last reply was longer than it said. So OpenSSL is asked: the
 * library that libcurl calls, and no other, which is why none is linked.
 */
static int (*shutdown_state)(const void *connection);
static int (*bytes_pending)(const void *connection);
static int (*records_pending)(const void *connection);

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- whose functions libcurl calls ---- */

/* Two OpenSSLs in a process are harmless as long as each library calls its own.
 * The dynamic linker sees to that by symbol versions: libcurl asks for
 * SSL_CTX_new of OPENSSL_3.0.0, and an OpenResty's libssl.so.1.1 has one of
 * OPENSSL_1_1_0. But an image that is ahead of libcurl's library and names no
 * versions is taken for any: a program that has linked OpenSSL or BoringSSL
 * statically (every nginx exports what is in it, for its modules), LibreSSL, a
 * preloaded library; and where there are no versions (musl), all. libcurl then
 * makes its structures with one library and uses them with the other. That
 * works if
 *
 * - both are OpenSSL of the same minor version (before 3: patch), so that the
 *   layouts of their structures are the same, or
 * - every function that libcurl needs comes from the other library, which is
 *   of the same major version (before 3: and minor) and not older. OpenSSL
 *   keeps a newer minor version compatible, and no older one.
 *
 * Everything else crashes in the first TLS connection. A program exports no
 * more than it uses, and functions are added with each minor version, so every
 * function has to be looked at: those that libcurl calls, and those that its
 * libssl and libcrypto call, which the program's may replace as well.
 */

/* libcurl with all that it is linked with, in that order, or NULL. */
static void *libcurl_open(const void *inside)
{
    Dl_info found;

    if (dladdr(inside, &found) == 0)
        return NULL;
    return dlopen(found.dli_fname, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

/* Whether a symbol has a version, by which references of another one pass it
 * over. */
static bool is_versioned(void *address)
{
#ifdef __GLIBC__
    const ElfW(Half) *versions = NULL;
    const ElfW(Sym) *symbols = NULL, *symbol;
    const struct link_map *image;
    void *extra;
    Dl_info found;

    if (dladdr1(address, &found, &extra, RTLD_DL_LINKMAP) == 0)
        return false;
    image = extra;
    if (dladdr1(address, &found, &extra, RTLD_DL_SYMENT) == 0)
        return false;
    symbol = extra;
    for (const ElfW(Dyn) *d = image->l_ld; d->d_tag != DT_NULL; d++) {
        ElfW(Addr) at = d->d_un.d_ptr;

        if (at < image->l_addr) /* some machines leave it relative */
            at += image->l_addr;
        if (d->d_tag == DT_VERSYM)
            versions = (const ElfW(Half) *)at;
        if (d->d_tag == DT_SYMTAB)
            symbols = (const ElfW(Sym) *)at;
    }
    return versions != NULL && symbol != NULL &&
           (versions[symbol - symbols] & 0x7fff) > VER_NDX_GLOBAL;
#else
    (void)address;
    return false;
#endif
}

/* What a reference of libcurl's is bound to; `own`: in the library that it was
 * linked with. */
static void *symbol_find(void *libcurl, const char *name, void **own)
{
    void *first = dlsym(RTLD_DEFAULT, name);

    *own = dlsym(libcurl, name);
#ifdef __APPLE__
    return *own; /* a reference there says in which library */
#endif
    if (first == NULL || *own == NULL || first == *own ||
        (is_versioned(first) && is_versioned(*own)))
        return *own;
    return first;
}

/* Whether libcurl uses a library with OpenSSL's interface at present. */
static bool is_openssl(void)
{
    static const char *const names[] = {"OpenSSL/", "LibreSSL/", "BoringSSL",
                                        "quictls/", "AWS-LC"};
    const char *used = curl_version_info(CURLVERSION_NOW)->ssl_version;

    for (size_t i = 0; used != NULL && i < sizeof(names) / sizeof(names[0]);
         i++) {
        if (strncmp(used, names[i], strlen(names[i])) == 0)
            return true;
    }
    return false;
}

/* "OpenSSL 3.0.19 27 Jan 2026"; "" where it is not told. */
static const char *version_of(void *symbol)
{
    const char *(*version)(int);

    if (symbol == NULL)
        return "";
    memcpy(&version, &symbol, sizeof(version));
    return version(0);
}

/* Whether what needs `ours` can have `others` in its place: for every function,
 * or for some. */
static bool versions_agree(const char *ours, const char *others, bool all)
{
    int our[3], other[3], level;

    if (sscanf(ours, "OpenSSL %d.%d.%d", &our[0], &our[1], &our[2]) != 3 ||
        sscanf(others, "OpenSSL %d.%d.%d", &other[0], &other[1], &other[2]) !=
            3)
        return strchr(ours, '.') != NULL && strcmp(ours, others) == 0;
    level = our[0] < 3 ? 2 : 1;
    if (our[0] != other[0] || (level == 2 && our[1] != other[1]))
        return false;
    return our[level] == other[level] || (all && our[level] < other[level]);
}

/* Functions that are called here. */
enum { VERSION, SHUTDOWN, PENDING, HAS_PENDING, WANTED };
static const char *const wanted[WANTED] = {
    "OpenSSL_version", "SSL_get_shutdown", "SSL_pending", "SSL_has_pending"};

/* Where the references of libcurl and its TLS library lead. */
typedef struct survey {
    void *libcurl;
    nymbl__image own[2];   /* the objects of its TLS library */
    nymbl__image other[2]; /* and of the one that has taken its place */
    size_t own_count, other_count;
    size_t kept, astray;
    bool strange;       /* one leads to a third library */
    char name[64];      /* of the first that went astray */
    void *seen[WANTED]; /* what libcurl's lead to */
} survey;

static bool images_hold(const nymbl__image *images, size_t count,
                        const void *address)
{
    for (size_t i = 0; i < count; i++) {
        if (nymbl__image_holds(&images[i], (uintptr_t)address))
            return true;
    }
    return false;
}

/* Add the object of an address, unless it is there already. */
static bool image_add(nymbl__image images[2], size_t *count,
                      const void *address)
{
    nymbl__image image;

    if (images_hold(images, *count, address))
        return true;
    if (*count == 2 || !nymbl__image_find(&image, address))
        return false;
    images[(*count)++] = image;
    return true;
}

static void astray_add(survey *survey, const char *name)
{
    if (survey->astray++ == 0)
        snprintf(survey->name, sizeof(survey->name), "%s", name);
}

/* Whether an address is in a program's table of stubs. If a program that is
 * loaded at a fixed place takes the address of a library's function, its stub
 * is that address for the whole process. */
static bool is_stub(void *address)
{
#ifdef __GLIBC__
    void *extra = NULL;
    Dl_info found;

    return dladdr1(address, &found, &extra, RTLD_DL_SYMENT) != 0 &&
           extra != NULL && found.dli_saddr == address &&
           ((const ElfW(Sym) *)extra)->st_shndx == SHN_UNDEF;
#else
    (void)address;
    return false;
#endif
}

/* Judge a reference; return what it leads to, or NULL if it is to no function
 * of a TLS library. */
static void *reference_judge(survey *survey, const char *name, void *bound)
{
    void *own;

    if (images_hold(survey->own, survey->own_count, bound)) {
        survey->kept++;
        return bound;
    }
    own = dlsym(survey->libcurl, name);
    /* curl_: libcurl's own, if the TLS library is within it */
    if (!images_hold(survey->own, survey->own_count, own) ||
        strncmp(name, "curl_", 5) == 0)
        return NULL;
    if (bound == NULL || is_stub(bound))
        bound = symbol_find(survey->libcurl, name, &own);
    if (images_hold(survey->own, survey->own_count, bound)) {
        survey->kept++;
    } else {
        astray_add(survey, name);
        if (!image_add(survey->other, &survey->other_count, bound))
            survey->strange = true;
    }
    return bound;
}

static void libcurl_visit(const char *name, void *bound, void *payload)
{
    survey *survey = payload;

    bound = reference_judge(survey, name, bound);
    for (int i = 0; i < WANTED; i++) {
        if (strcmp(name, wanted[i]) == 0)
            survey->seen[i] = bound;
    }
}

/* Look at every function; return false if references cannot be read. */
static bool imports_survey(survey *survey, const void *inside)
{
    nymbl__image libcurl, libc;
    size_t passed_over_count;

    if (!nymbl__image_find(&libcurl, inside) ||
        !image_add(survey->own, &survey->own_count,
                   dlsym(survey->libcurl, "SSL_CTX_new")) ||
        !image_add(survey->own, &survey->own_count,
                   dlsym(survey->libcurl, "OpenSSL_version")))
        return false;
    passed_over_count = nymbl__image_libc(&libc);
    nymbl__imports_each(&libcurl, &libc, passed_over_count, libcurl_visit,
                        survey);
    return survey->kept + survey->astray > 0;
}

/* Look at what every program uses, and what few do, of both libraries. */
static void names_survey(survey *survey)
{
    static const char *const names[] = {
        "OpenSSL_version",      "SSL_CTX_new",  "SSL_get_shutdown",
        "X509_STORE_set_flags", "BIO_meth_new", "X509_LOOKUP_file",
    };
    void *own, *bound;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bound = symbol_find(survey->libcurl, names[i], &own);
        if (bound != own)
            astray_add(survey, names[i]);
        else
            survey->kept += own != NULL;
    }
}

static void own_visit(const char *name, void *bound, void *payload)
{
    reference_judge(payload, name, bound);
}

/* Look at what libcurl's own TLS library calls. Unless it was built with
 * -Bsymbolic, its calls of itself are bound by the dynamic linker too. */
static void own_survey(survey *survey)
{
    nymbl__image good[3];
    size_t count = survey->own_count;

    memcpy(good, survey->own, count * sizeof(good[0]));
    count += nymbl__image_libc(&good[count]);
    for (size_t i = 0; i < survey->own_count; i++)
        nymbl__imports_each(&survey->own[i], good, count, own_visit, survey);
}

static char problem[400];

/* Fill in `problem` where calls go astray. */
static void problem_find(survey *survey, const void *inside)
{
    const char *ours, *others;
    void *own, *bound;
    bool all;

    if (!imports_survey(survey, inside))
        names_survey(survey);
    all = survey->kept == 0;
    if (!all)
        own_survey(survey);
    if (survey->astray == 0)
        return;
    bound = symbol_find(survey->libcurl, wanted[VERSION], &own);
    if (survey->seen[VERSION] != NULL)
        bound = survey->seen[VERSION];
    ours = version_of(own);
    others = bound != own ? version_of(bound) : "";
    if (!survey->strange && versions_agree(ours, others, all))
        return;
    snprintf(problem, sizeof(problem),
             "libcurl is linked with %.40s, but this program has %.40s in its "
             "place%s (%s), and a TLS connection would crash: install a "
             "libcurl that is linked with what the program has, or a program "
             "that is linked with the system's OpenSSL",
             ours, *others != '\0' ? others : "another TLS library",
             all ? "" : " for some functions", survey->name);
}

/* Store one of the library that libcurl calls. libcurl does not need all that
 * are called here: then the program may lack it, or have it alone, and that of
 * the wrong library must not get the other's connection. */
static void function_store(void *function, const survey *survey, int which)
{
    void *found = survey->seen[which], *own;

    if (found == NULL) {
        found = symbol_find(survey->libcurl, wanted[which], &own);
        if (survey->kept > 0 && survey->own_count > 0)
            found = own;
        else if (survey->own_count > 0 &&
                 !images_hold(survey->other, survey->other_count, found))
            found = NULL;
    }
    memcpy(function, &found, sizeof(found));
}

static void library_find(void)
{
    survey survey = {0};
    /* in libcurl itself, as the address of a function may not be */
    const void *inside = curl_version_info(CURLVERSION_NOW)->version;

    if (!is_openssl())
        return;
    survey.libcurl = libcurl_open(inside);
    if (survey.libcurl == NULL)
        survey.libcurl = dlopen(NULL, RTLD_LAZY); /* it is in the program */
    problem_find(&survey, inside);
    function_store(&shutdown_state, &survey, SHUTDOWN);
    function_store(&bytes_pending, &survey, PENDING);
    function_store(&records_pending, &survey, HAS_PENDING);
    dlclose(survey.libcurl);
}

const char *nymbl_tls_problem(void)
{
    pthread_once(&once, library_find);
    return *problem != '\0' ? problem : NULL;
}

/* ---- what it knows of a connection ---- */

/* The SSL of a transfer's connection, or NULL. */
static const void *connection_of(CURL *easy)
{
    const struct curl_tlssessioninfo *session = NULL;

    pthread_once(&once, library_find);
    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == NULL || session->backend != CURLSSLBACKEND_OPENSSL)
        return NULL;
    return session->internals;
}

bool nymbl__tls_has_ended(CURL *easy)
{
    const void *connection = connection_of(easy);

    return connection != NULL && shutdown_state != NULL &&
           (shutdown_state(connection) & RECEIVED_SHUTDOWN) != 0;
}

bool nymbl__tls_has_pending(CURL *easy)
{
    const void *connection = connection_of(easy);

    if (connection == NULL)
        return false;
    /* SSL_has_pending() also sees records that were read ahead but not
     * processed yet; very old libraries lack it */
    return (bytes_pending != NULL && bytes_pending(connection) > 0) ||
           (records_pending != NULL && records_pending(connection) > 0);
}
