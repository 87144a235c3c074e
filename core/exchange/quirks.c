/* SPDX-License-Identifier: MIT */
/* Known bugs of libcurl and their workarounds, by version. Unless the code
 * tests for a version, a workaround is always active, because it is harmless
 * with other versions.
 *
 * Sources: curl's RELEASE-NOTES from 7.88.0 to 8.21.0, its issues and security
 * advisories. Listed is what a server or proxy, whether hostile or unusual, can
 * trigger with the options that settings.c, wire.c and multipart.c set:
 * HTTP/1.1, the OpenSSL backend, no cookies, no content decoding, and neither
 * redirects nor authentication by libcurl. Each item starts with the version
 * that fixed it.
 *
 * An easy handle that serves more than one exchange:
 * nymbl__quirks_handle_is_single_use()
 *   8.1.0   If the first header line of a response is folded, it is joined to
 *           a freed line of the previous response, which corrupts the heap
 *           (issue 11101). The target of a redirect can do it, too.
 *   8.16.0  After an upload that could not be rewound every later exchange
 *           fails (issue 18206).
 *   8.19.0  After an exchange that ended while paused the next one never
 *           proceeds (8.18.0 only; issue 20641).
 *   8.20.0  A "Trailer" field is remembered for the next response (since
 *           8.10.0), and the digest for a proxy is sent to the next proxy
 *           (CVE-2026-7168).
 *   curl_easy_duphandle() is no substitute for a new handle: before 8.5.0 it
 *   frees pointers twice if memory runs out.
 *
 * A connection that is reused: prereq_cb(), sockets.c, tls.c
 *   8.0.0   A connection with unread bytes is reused, and a closed one counts
 * as open (issues 10690, 10646). Later versions still repeat the request on
 * their own, and do not see bytes that OpenSSL has already read. 8.2.0   The
 * close callback is not called for a socket that never connected (since 7.88.0;
 * pull request 11439): socket_is_ours(). 8.3.0   A connection on which half a
 * body was sent before a 417 is reused (issue 11678). The second request is
 * refused. 8.15.0  This version and later ones let OpenSSL read ahead:
 *           nymbl__tls_has_pending() detects unprocessed records,
 *           nymbl__tls_has_ended() a close_notify that was processed.
 *
 * A redirect's target
 *   8.4.0   A host name of more than 255 bytes is copied past the end of a
 *           buffer if a SOCKS5 proxy is to resolve it and is slow
 *           (CVE-2023-38545; since 7.69.0): nymbl__url_resolve() rejects it.
 *
 * A head that is ambiguous: head.c checks it before libcurl does
 *   8.0.0   A status of more than three digits is refused; later versions
 *           accept it.
 *   8.3.0   Headers may use any amount of memory (CVE-2023-38039):
 *           NYMBL__HEAD_MAX. A folded first line ends the exchange; later
 *           versions parse it as a field.
 *   8.8.0   Other codings may follow "chunked". A coding that was not asked for
 *           is decoded, or it ends the exchange at its line (8.14).
 *   8.17.0  A second Location is ignored, later an error; a Content-Length may
 *           have other characters after its digits.
 *   8.18.0  Folded lines reach the header callback as they are; later versions
 *           join them first.
 *   8.21.0  CRs inside a head are accepted, and a line that begins with a CR
 *           ends it.
 *
 * A reference that is resolved: url.c checks it before libcurl does
 *   8.0.0   Control characters in it are refused; 8.14 encodes them.
 *
 * One failure with two codes: curl_error.c
 *   8.6.0   A header line over libcurl's own limit is CURLE_OUT_OF_MEMORY;
 *           later versions have CURLE_TOO_LARGE.
 *   any     A transfer coding that was not asked for is ignored, or it is
 *           CURLE_BAD_CONTENT_ENCODING.
 *
 * Uploads: multipart.c, nymbl__wire_unpause()
 *   8.5.0   The read callback is called again after the end (since 7.84.0); it
 *           reports the end again.
 *   8.17.0  The end of a pause may be missed (since 8.7.0; issue 18848), and
 *           before 8.7.0 it is ignored if it comes before the pause is noticed.
 *           So the transfer is paused first, then resumed.
 *
 * No workaround; a distribution's own patch is needed
 *   8.1.0   A certificate's wildcard may match a name in punycode
 *           (CVE-2023-28321).
 *   8.12.0  A descriptor is closed twice after a name was resolved (8.11.1
 *           only; CVE-2025-0665).
 *   8.19.0  A tunnel through a proxy is reused with other credentials for
 *           the same proxy (CVE-2026-3784).
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
