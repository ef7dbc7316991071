/* exit_codes: how the process ends (exit_codes.def). Constants. */
#ifndef MILLRACE_MAIN_EXIT_CODES_H
#define MILLRACE_MAIN_EXIT_CODES_H

enum exit_code {
#define EXIT_CODE(name, number, text) END_##name = number,
#include "main/exit_codes.def"
#undef EXIT_CODE
};

#endif
