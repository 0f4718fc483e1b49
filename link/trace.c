/* Which functions of a program does a run execute? Single-steps it, and each process that it clones until that one
 * becomes another program, and writes the functions' names in the order of their first use: "PROCESS NAME", the first
 * process being 0.
 *
 * Neighbours: scripts/link-order gives it the symbols and makes link/start.ld of the answer. Never: follows an exec.
 *
 * Usage: trace SYMBOLS PROGRAM [ARGUMENT]...  SYMBOLS is what `nm -n` prints. The program must not be position-independent.
 */
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SYMBOLS = 1 << 18, PROCESSES = 16 };

static struct symbol {
	uint64_t address;
	char *name;
	unsigned char seen[PROCESSES];
} symbols[SYMBOLS];
static size_t count;

static struct process {
	pid_t pid;
	int other; /* it is another program by now */
} processes[PROCESSES];
static size_t running;

static void read_symbols(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[16384], kind;
	int name;
	if (!file)
		err(2, "%s", path);
	while (count < SYMBOLS && fgets(line, sizeof line, file)) {
		struct symbol *symbol = &symbols[count];
		if (sscanf(line, "%lx %c %n", &symbol->address, &kind, &name) < 2 || !strchr("tTwWiI", kind))
			continue;
		line[strcspn(line, "\n")] = 0;
		if (count && symbols[count - 1].address == symbol->address)
			continue;
		symbol->name = strdup(line + name);
		count++;
	}
	fclose(file);
}

static void note(size_t process, uint64_t address)
{
	static size_t last[PROCESSES];
	size_t low = 0, high = count;
	/* Mostly the function of the step before. */
	if (last[process] + 1 < count && symbols[last[process]].address <= address &&
	    address < symbols[last[process] + 1].address)
		return;
	while (high - low > 1) {
		size_t middle = (low + high) / 2;
		*(symbols[middle].address <= address ? &low : &high) = middle;
	}
	if (!count || symbols[low].address > address || low + 1 == count)
		return;
	last[process] = low;
	if (symbols[low].seen[process])
		return;
	symbols[low].seen[process] = 1;
	printf("%zu %s\n", process, symbols[low].name);
}

static size_t process_of(pid_t pid)
{
	size_t i = 0;
	while (i < running && processes[i].pid != pid)
		i++;
	if (i == running) {
		if (i == PROCESSES)
			errx(2, "more than %d processes", PROCESSES);
		processes[running++].pid = pid;
	}
	return i;
}

int main(int argc, char **argv)
{
	int status, begun = 0;
	pid_t pid;
	if (argc < 3)
		errx(2, "usage: trace SYMBOLS PROGRAM [ARGUMENT]...");
	read_symbols(argv[1]);
	pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execvp(argv[2], argv + 2);
		err(2, "%s", argv[2]);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, 0,
	       PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
	ptrace(PTRACE_CONT, pid, 0, 0);
	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		size_t process = process_of(pid);
		int event = status >> 16, signal = WSTOPSIG(status);
		struct user_regs_struct registers;
		if (!WIFSTOPPED(status)) {
			if (process == 0 && status)
				errx(1, "the program failed (status %#x)", status);
			continue;
		}
		if (event == PTRACE_EVENT_EXEC && begun++)
			processes[process].other = 1;
		if (signal == SIGTRAP || signal == SIGSTOP)
			signal = 0;
		if (processes[process].other) {
			ptrace(PTRACE_CONT, pid, 0, signal);
			continue;
		}
		if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0)
			note(process, registers.rip);
		ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
	}
	return 0;
}
