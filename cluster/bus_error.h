/* A file that is mapped and then cut short by somebody else, or whose disk fails, is no error of a
 * read but a signal, SIGBUS, in whichever thread touches it next. */
#pragma once

/* From now on SIGBUS at a mapped file ends the process with one line that names the file and the
 * exit status of LH_EIO: as a kill would, so that what was cut stays. Any other SIGBUS ends it as
 * before. */
void lh_bus_error_catch(void);
