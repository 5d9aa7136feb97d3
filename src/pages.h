/*
 * pages.h: the two pages for people as bytes of the program, linked in by pages.S: at / the page to explore
 * distributions with, at /docs the API's description. Each is one HTML document that needs nothing else, and has a
 * Content-Security-Policy that names the hashes of its script and style. web/build.mjs makes them from web/ and
 * openapi.json; a build without Node has web/missing.html in both places (web/page.cmake).
 */
#ifndef PAGES_H
#define PAGES_H

// From the first byte to past the last; no NUL.
extern const char explorer_html[], explorer_html_end[], explorer_csp[], explorer_csp_end[];
extern const char docs_html[], docs_html_end[], docs_csp[], docs_csp_end[];

#endif
