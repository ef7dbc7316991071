/* os_process: what the process asks of the system about itself: limits, memory, processors, signals, the allocator.
 *
 * Any thread, unless said otherwise; the setters are for boot.
 */
#ifndef MILLRACE_OS_OS_PROCESS_H
#define MILLRACE_OS_OS_PROCESS_H

#include "base/types.h"

/* Raises the soft descriptor limit to the hard one; the answer is what holds now. */
uint64_t os_descriptors_raise(void);
/* Bytes of RAM that this process may use: of the machine or of its memory cgroup, whichever is less. */
uint64_t os_memory_total(void);
/* Bytes of RAM that this process occupies; 0 when the system does not say. */
uint64_t os_memory_resident(void);
struct os_memory {
    uint64_t resident; /* RAM that the process occupies */
    uint64_t files;    /* of it: the program and its libraries */
    uint64_t heap;     /* what the allocator has handed out */
};
/* May take milliseconds. */
void os_memory_figures(struct os_memory *ret);
unsigned os_processors(void);
/* Whether a crash may leave a core file, and others of the same user may attach. */
void os_dumpable_set(bool dumpable);
/* Keeps the allocator small: how many arenas, and when freed memory goes back to the system. Before any thread. */
void os_allocator_tune(unsigned arenas);
/* Gives freed pages back to the system. May take milliseconds. */
void os_allocator_trim(void);

/* Whether somebody looks at this descriptor (a terminal). */
bool os_is_terminal(int fd);

/* Whether something is there that is no plain file: a pipe, a terminal, a folder. */
bool os_is_special(const char *path);

/* Its columns; 0: nobody knows. */
unsigned os_terminal_columns(int fd);

/* For who talks to people: SIGINT ends waiting (EINTR), not the process. Main thread, once, in place of os_signals_catch. */
void os_interrupts_keep(void);
/* SIGINT has come since this was last asked. */
bool os_interrupt_taken(void);

/* SIGTERM and SIGINT call first(arg) once, in signal context (it may only do what signal handlers may); a second one ends
 * the process at once. SIGHUP calls it each time. SIGPIPE is ignored. Main thread, once. */
void os_signals_catch(void (*first)(void *arg), void *arg);
/* SIGHUP has come since this was last asked. */
bool os_signal_hung_up(void);
/* The signal that came; 0: none. */
int os_signal_caught(void);

#endif
