/* Looks over the pages of an LMDB file before LMDB maps it. LMDB trusts its pages: a flipped bit in
 * one of them, or a file cut short, is a crash of the process that reads it. Data blocks have
 * checksums of their own; this checks what leads to them. */
#pragma once

/* `path` is a data.mdb that nobody writes meanwhile. Follows both trees of the newest version and
 * the list of free pages: each page lies in the file, has the form its place asks for, and is used
 * once; keys are in order. Reads the pages of the trees, and one page per
 * large value. Errors: LH_ECORRUPT with a sentence
 * that names the file and the page; LH_EFORMAT if it is no LMDB file of format 1; LH_ENOENT,
 * LH_EACCES, LH_EIO, LH_ENOMEM. */
int lh_store_pages_check(const char *path);
