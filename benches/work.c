/* Work that is timed from inside: system calls that do next to nothing. Prints how many nanoseconds they took.
 *
 * Neighbours: benches/speed/work.rs runs it in a cell and outside. Never: counts its own start.
 *
 *     work getppid|read NUMBER [filtered]     filtered: below the least filter of system calls that there can be
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	if (argc == 4) {
		struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
		struct sock_fprog program = { 1, &allow };
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
			return 1;
	}
	long number = atol(argv[2]);
	int zero = open("/dev/zero", O_RDONLY);
	if (zero < 0)
		return 1;
	char byte;
	long long start = now();
	if (strcmp(argv[1], "getppid") == 0) {
		for (long done = 0; done < number; done++)
			syscall(SYS_getppid);
	} else {
		for (long done = 0; done < number; done++)
			if (read(zero, &byte, 1) != 1)
				return 1;
	}
	printf("%lld\n", now() - start);
	return 0;
}
