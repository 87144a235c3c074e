/* SPDX-License-Identifier: MIT */
/* The TLS library that libcurl is linked with: whether libcurl's calls reach it
 * (symbol interposition), and its functions. */
#include "exchange/tls_library.h"

#include "exchange/image.h"
#include "nymbl.h"

#include <curl/curl.h>
#include <dlfcn.h>
#ifdef __GLIBC__
#include <link.h>
#endif
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static nymbl__tls_functions functions;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- symbol interposition ---- */

/* Two copies of OpenSSL in a process are harmless as long as each caller uses
 * its own. Symbol versions ensure that: libcurl refers to SSL_CTX_new of
 * OPENSSL_3.0.0, and libssl.so.1.1 of an OpenResty defines that of
 * OPENSSL_1_1_0. But a definition without a version satisfies any reference if
 * its object comes first in the lookup order (symbol interposition, see
 * ld.so(8)): a program that links OpenSSL or BoringSSL statically (every nginx
 * exports its symbols for its modules), LibreSSL, or a preloaded library;
 * without symbol versions (musl), any library. libcurl would then create its
 * structures with one library and use them with the other. That works only if
 *
 * - both are OpenSSL of the same minor version (before 3: patch version), so
 *   that their structures have the same layout, or
 * - all functions that libcurl needs come from the other library, and it is of
 *   the same major version (before 3: minor version) and not older. A newer
 *   minor version of OpenSSL is compatible, an older one is not.
 *
 * Anything else crashes in the first TLS connection. A program exports only the
 * functions that it uses, and each minor version adds functions. So every
 * reference is checked: those of libcurl, and those of its libssl and
 * libcrypto, which may be interposed as well. */

/* A handle with which dlsym() looks a symbol up in libcurl and then in its
 * dependencies; or NULL. `inside`: an address inside libcurl. */
static void *libcurl_open(const void *inside)
{
    Dl_info found;

    if (dladdr(inside, &found) == 0)
        return NULL;
    return dlopen(found.dli_fname, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

/* Whether a symbol has a version, so that it does not satisfy references to
 * another version. */
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

        if (at < image->l_addr) /* on some machines it is relative */
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

/* The address that libcurl's reference to a symbol is bound to. `own`: the
 * address in the library that libcurl was linked with. */
static void *symbol_find(void *libcurl, const char *name, void **own)
{
    void *first = dlsym(RTLD_DEFAULT, name);

    *own = dlsym(libcurl, name);
#ifdef __APPLE__
    return *own; /* a reference names its library (two-level namespace) */
#endif
    if (first == NULL || *own == NULL || first == *own ||
        (is_versioned(first) && is_versioned(*own)))
        return *own;
    return first;
}

/* Whether libcurl currently uses a library with OpenSSL's API. */
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

/* The version text, such as "OpenSSL 3.0.19 27 Jan 2026"; "" if it is unknown.
 */
static const char *version_of(void *symbol)
{
    const char *(*version)(int);

    if (symbol == NULL)
        return "";
    memcpy(&version, &symbol, sizeof(version));
    return version(0);
}

/* Whether callers built for version `ours` can use a library of version
 * `others`, for all functions or only for some. */
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

/* The functions of OpenSSL that are looked up. */
enum {
    VERSION,
    SHUTDOWN,
    PENDING,
    HAS_PENDING,
    PEER_CERTIFICATE,
    PEER_CERTIFICATE_1, /* its name since OpenSSL 3 */
    NOT_AFTER,
    TIME_DIFF,
    CERTIFICATE_FREE,
    WANTED_COUNT
};
static const char *const wanted[WANTED_COUNT] = {"OpenSSL_version",
                                                 "SSL_get_shutdown",
                                                 "SSL_pending",
                                                 "SSL_has_pending",
                                                 "SSL_get_peer_certificate",
                                                 "SSL_get1_peer_certificate",
                                                 "X509_get0_notAfter",
                                                 "ASN1_TIME_diff",
                                                 "X509_free"};

/* Which libraries the references of libcurl and its TLS library are bound to.
 */
typedef struct survey {
    void *libcurl;         /* see libcurl_open() */
    nymbl__image own[2];   /* libcurl's own libssl and libcrypto */
    nymbl__image other[2]; /* the library that is called instead */
    size_t own_count, other_count;
    size_t own_refs, interposed_refs; /* references to each */
    bool has_third_library;    /* a reference is bound to a third library */
    char first_interposed[64]; /* the first interposed symbol */
    void
        *bound[WANTED_COUNT]; /* addresses of the `wanted` functions, or NULL */
} survey;

static bool images_contain(const nymbl__image *images, size_t count,
                           const void *address)
{
    for (size_t i = 0; i < count; i++) {
        if (nymbl__image_contains(&images[i], (uintptr_t)address))
            return true;
    }
    return false;
}

/* Add the object that contains an address, unless it is listed. Returns false
 * if it cannot be added. */
static bool image_add(nymbl__image images[2], size_t *count,
                      const void *address)
{
    nymbl__image image;

    if (images_contain(images, *count, address))
        return true;
    if (*count == 2 || !nymbl__image_find(&image, address))
        return false;
    images[(*count)++] = image;
    return true;
}

static void interposed_add(survey *survey, const char *name)
{
    if (survey->interposed_refs++ == 0)
        snprintf(survey->first_interposed, sizeof(survey->first_interposed),
                 "%s", name);
}

/* Whether an address is an entry of the program's procedure linkage table
 * (PLT). If a program that is not position-independent takes the address of a
 * library's function, its PLT entry is the function's address in the whole
 * process. */
static bool is_plt_entry(void *address)
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

/* Count a reference as own or interposed. Returns the address that it is bound
 * to, or NULL if it does not refer to a function of a TLS library. */
static void *reference_count(survey *survey, const char *name, void *bound)
{
    void *own;

    if (images_contain(survey->own, survey->own_count, bound)) {
        survey->own_refs++;
        return bound;
    }
    own = dlsym(survey->libcurl, name);
    /* curl_: a function of libcurl itself, which may contain the TLS library */
    if (!images_contain(survey->own, survey->own_count, own) ||
        strncmp(name, "curl_", 5) == 0)
        return NULL;
    if (bound == NULL || is_plt_entry(bound))
        bound = symbol_find(survey->libcurl, name, &own);
    if (images_contain(survey->own, survey->own_count, bound)) {
        survey->own_refs++;
    } else {
        interposed_add(survey, name);
        if (!image_add(survey->other, &survey->other_count, bound))
            survey->has_third_library = true;
    }
    return bound;
}

static void libcurl_ref_visit(const char *name, void *bound, void *payload)
{
    survey *survey = payload;

    bound = reference_count(survey, name, bound);
    for (int i = 0; i < WANTED_COUNT; i++) {
        if (strcmp(name, wanted[i]) == 0)
            survey->bound[i] = bound;
    }
}

/* Survey every reference of libcurl. Returns false if references cannot be
 * read.
 */
static bool survey_libcurl(survey *survey, const void *inside)
{
    nymbl__image libcurl, libc;
    size_t excluded_count;

    if (!nymbl__image_find(&libcurl, inside) ||
        !image_add(survey->own, &survey->own_count,
                   dlsym(survey->libcurl, "SSL_CTX_new")) ||
        !image_add(survey->own, &survey->own_count,
                   dlsym(survey->libcurl, "OpenSSL_version")))
        return false;
    excluded_count = nymbl__image_find_libc(&libc);
    nymbl__image_visit_imports(&libcurl, &libc, excluded_count,
                               libcurl_ref_visit, survey);
    return survey->own_refs + survey->interposed_refs > 0;
}

/* Survey a sample of symbols from libssl and libcrypto: some that every program
 * uses, and some that few programs use. */
static void survey_sample(survey *survey)
{
    static const char *const names[] = {
        "OpenSSL_version",      "SSL_CTX_new",  "SSL_get_shutdown",
        "X509_STORE_set_flags", "BIO_meth_new", "X509_LOOKUP_file",
    };
    void *own, *bound;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bound = symbol_find(survey->libcurl, names[i], &own);
        if (bound != own)
            interposed_add(survey, names[i]);
        else
            survey->own_refs += own != NULL;
    }
}

static void own_ref_visit(const char *name, void *bound, void *payload)
{
    reference_count(payload, name, bound);
}

/* Survey the references of libcurl's TLS library. Unless the library was built
 * with -Bsymbolic, calls within it can be interposed too. */
static void survey_own_library(survey *survey)
{
    nymbl__image excluded[3];
    size_t count = survey->own_count;

    memcpy(excluded, survey->own, count * sizeof(excluded[0]));
    count += nymbl__image_find_libc(&excluded[count]);
    for (size_t i = 0; i < survey->own_count; i++)
        nymbl__image_visit_imports(&survey->own[i], excluded, count,
                                   own_ref_visit, survey);
}

static char problem[400]; /* the result of nymbl_tls_problem(), or "" */

/* Fill in `problem` if an interposed symbol would crash a connection. */
static void interposition_check(survey *survey, const void *inside)
{
    const char *ours, *others; /* version texts */
    void *own, *bound;
    bool all; /* all functions are interposed */

    if (!survey_libcurl(survey, inside))
        survey_sample(survey);
    all = survey->own_refs == 0;
    if (!all)
        survey_own_library(survey);
    if (survey->interposed_refs == 0)
        return;
    bound = symbol_find(survey->libcurl, wanted[VERSION], &own);
    if (survey->bound[VERSION] != NULL)
        bound = survey->bound[VERSION];
    ours = version_of(own);
    others = bound != own ? version_of(bound) : "";
    if (!survey->has_third_library && versions_agree(ours, others, all))
        return;
    snprintf(problem, sizeof(problem),
             "libcurl is linked with %.40s, but this program has %.40s, which "
             "is called instead%s (%s), so a TLS connection would crash: "
             "install a libcurl that is linked with the same library as the "
             "program, or a program that is linked with the system's OpenSSL",
             ours, *others != '\0' ? others : "another TLS library",
             all ? "" : " for some functions", survey->first_interposed);
}

/* Store the address of a `wanted` function in the library that libcurl calls,
 * or NULL. If libcurl does not refer to the function, the definition that is
 * found may belong to the other library, which must not get libcurl's
 * connection. */
static void function_resolve(void *function, const survey *survey, int which)
{
    void *found = survey->bound[which], *own;

    if (found == NULL) {
        found = symbol_find(survey->libcurl, wanted[which], &own);
        if (survey->own_refs > 0 && survey->own_count > 0)
            found = own;
        else if (survey->own_count > 0 &&
                 !images_contain(survey->other, survey->other_count, found))
            found = NULL;
    }
    memcpy(function, &found, sizeof(found));
}

static void library_find(void)
{
    survey survey = {0};
    /* an address inside libcurl; the address of a function might be an entry of
     * the program's procedure linkage table */
    const void *inside = curl_version_info(CURLVERSION_NOW)->version;

    if (!is_openssl())
        return;
    survey.libcurl = libcurl_open(inside);
    if (survey.libcurl == NULL) /* libcurl is linked statically */
        survey.libcurl = dlopen(NULL, RTLD_LAZY);
    interposition_check(&survey, inside);
    function_resolve(&functions.get_shutdown, &survey, SHUTDOWN);
    function_resolve(&functions.pending, &survey, PENDING);
    function_resolve(&functions.has_pending, &survey, HAS_PENDING);
    function_resolve(&functions.peer_certificate, &survey, PEER_CERTIFICATE_1);
    if (functions.peer_certificate == NULL)
        function_resolve(&functions.peer_certificate, &survey,
                         PEER_CERTIFICATE);
    function_resolve(&functions.not_after, &survey, NOT_AFTER);
    function_resolve(&functions.time_diff, &survey, TIME_DIFF);
    function_resolve(&functions.certificate_free, &survey, CERTIFICATE_FREE);
    dlclose(survey.libcurl);
}

const char *nymbl_tls_problem(void)
{
    pthread_once(&once, library_find);
    return *problem != '\0' ? problem : NULL;
}

const nymbl__tls_functions *nymbl__tls_library(void)
{
    pthread_once(&once, library_find);
    return &functions;
}
