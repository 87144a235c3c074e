/* SPDX-License-Identifier: MIT */
/* Known bugs of libcurl and their workarounds, by version. Unless the code
 * tests for a version, a workaround is always active, because it is harmless
 * with other versions.
 *
 * Sources: curl's RELEASE-NOTES from 7.88.0 to 8.21.0, its issues and its
 * security advisories. The list contains what a hostile or unusual server or
 * proxy can trigger with the options that settings.c, easy.c and multipart.c
 * set: HTTP/1.1, the OpenSSL backend, no cookies, no content decoding, and
 * neither redirects nor authentication by libcurl. An item starts with the
 * version that fixed or changed the behavior.
 *
 * Easy handles that serve more than one exchange. Workaround:
 * nymbl__quirks_handle_is_single_use(). curl_easy_duphandle() is no substitute
 * for a new handle: before 8.5.0 it frees pointers twice if memory runs out.
 * - 8.1.0: If the first header line of a response, or of a redirect's target,
 *   is folded, it is joined to a freed line of the previous response, which
 *   corrupts the heap (issue 11101).
 * - 8.16.0: After an upload that could not be rewound every later exchange
 *   fails (issue 18206).
 * - 8.19.0: After an exchange that ended while paused the next one never
 *   proceeds (only in 8.18.0; issue 20641).
 * - 8.20.0: A "Trailer" field is remembered for the next response (since
 *   8.10.0), and the digest for a proxy is sent to the next proxy
 *   (CVE-2026-7168).
 *
 * Reused connections. Workarounds: prereq_cb(), sockets.c, tls.c
 * - 8.0.0: A connection with unread bytes is reused, and a closed one counts as
 *   open (issues 10690, 10646). Later versions still repeat the request on
 *   their own, and overlook bytes that OpenSSL has already read.
 * - 8.2.0: The close callback is not called for a socket that never connected
 *   (since 7.88.0; pull request 11439). So sockets.c compares inodes.
 * - 8.3.0: A connection on which half a body was sent before a 417 is reused
 *   (issue 11678). prereq_cb() refuses the second request.
 * - 8.15.0: Since this version OpenSSL reads ahead. nymbl__tls_has_pending()
 *   detects unprocessed records, nymbl__tls_has_ended() a processed
 *   close_notify.
 *
 * Targets of redirects. Workaround: nymbl__url_resolve() rejects them
 * - 8.4.0: A host name of more than 255 bytes is copied past the end of a
 *   buffer if a slow SOCKS5 proxy is to resolve it (CVE-2023-38545; since
 *   7.69.0).
 *
 * Ambiguous heads. Workaround: head.c checks a head before libcurl does
 * - 8.0.0: A status of more than three digits is refused; later versions accept
 *   it.
 * - 8.3.0: Headers may use any amount of memory (CVE-2023-38039; see
 *   NYMBL__HEAD_MAX). A folded first line ends the exchange; later versions
 *   parse it as a field.
 * - 8.8.0: Other codings may follow "chunked". A coding that was not requested
 *   is decoded, or it ends the exchange at its line (8.14).
 * - 8.17.0: A second Location is ignored, later it is an error; a
 *   Content-Length may have other characters after its digits.
 * - 8.18.0: The header callback gets folded lines as they are; later versions
 *   join them first.
 * - 8.21.0: CRs inside a head are accepted, and a line that begins with a CR
 *   ends the head.
 *
 * References in redirects. Workaround: url.c checks them before libcurl does
 * - 8.0.0: Control characters are refused; 8.14 encodes them.
 *
 * Failures with two codes. Workaround: curl_error.c knows both
 * - 8.6.0: The code for a header line over libcurl's own limit was
 *   CURLE_OUT_OF_MEMORY and became CURLE_TOO_LARGE.
 * - Not fixed in 8.14.1: If the name of a proxy cannot be resolved, the code is
 *   CURLE_COULDNT_RESOLVE_PROXY, or CURLE_COULDNT_RESOLVE_HOST if the resolver
 *   fails at once.
 * - All versions: A transfer coding that was not requested is ignored, or it
 *   fails with CURLE_BAD_CONTENT_ENCODING.
 *
 * Uploads. Workarounds: multipart.c, nymbl__easy_unpause()
 * - 8.5.0: The read callback is called again after it has reported the end
 *   (since 7.84.0); it reports the end again.
 * - 8.17.0: A resumption may be overlooked (since 8.7.0; issue 18848); before
 *   8.7.0 it is ignored if it precedes the pause. So the transfer is paused
 *   first, then resumed.
 *
 * Bugs without a workaround, which only the distribution can fix
 * - 8.1.0: The wildcard of a certificate may match a name in punycode
 *   (CVE-2023-28321).
 * - 8.8.0: If memory runs out while a TLS session is stored, pointers are freed
 *   twice.
 * - 8.12.0: A descriptor is closed twice after a name was resolved (only in
 *   8.11.1; CVE-2025-0665).
 * - 8.19.0: A tunnel through a proxy is reused with other credentials for the
 *   same proxy (CVE-2026-3784).
 */
#include "exchange/quirks.h"

#include "exchange/exchange.h"
#include "exchange/head.h"
#include "exchange/tls.h"

bool nymbl__quirks_handle_is_single_use(void)
{
    return curl_version_info(CURLVERSION_NOW)->version_num <
           0x081400; /* 8.20 */
}
