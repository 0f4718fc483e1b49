/*
 * The probe: tries what it is told, one thing an argument, and prints what the kernel answered, one line each.
 *
 * Neighbours: `probe.rs` compiles it, and the tests run it bare and in cells. Never: decides what is right.
 *
 * An argument is an operation and its operands, separated by commas: `read,/etc/passwd`. The answer is the argument,
 * a blank, and `ok`, an errno's name, a value, or `signal N` when the operation killed the process that tried it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPERANDS 8
static char *operand[OPERANDS];
static char answer[1 << 16];

static long number(int index) { return strtol(operand[index], NULL, 0); }

/* -1 becomes the errno's name, all else `ok`. */
static void result(long value)
{
	snprintf(answer, sizeof answer, "%s", value == -1 ? strerrorname_np(errno) : "ok");
}

static void result_close(int fd)
{
	result(fd);
	if (fd >= 0)
		close(fd);
}

static int by_name(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static void list(const char *path)
{
	char *names[4096];
	size_t count = 0;
	DIR *directory = opendir(path);
	if (!directory)
		return result(-1);
	for (struct dirent *entry; (entry = readdir(directory)) && count < 4096;)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			names[count++] = strdup(entry->d_name);
	closedir(directory);
	qsort(names, count, sizeof *names, by_name);
	answer[0] = 0;
	for (size_t i = 0; i < count; i++)
		snprintf(answer + strlen(answer), sizeof answer - strlen(answer), "%s%s", i ? " " : "", names[i]);
}

/* Reads a whole file; line ends become `|`, and NULs `;`. */
static void cat(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return result(-1);
	ssize_t length = 0, count;
	while ((count = read(fd, answer + length, sizeof answer - 1 - length)) > 0)
		length += count;
	close(fd);
	if (count < 0)
		return result(-1);
	for (ssize_t i = 0; i < length; i++)
		if (answer[i] == '\n' || !answer[i])
			answer[i] = answer[i] ? '|' : ';';
	answer[length] = 0;
}

static void execute(const char *path)
{
	int errors[2];
	if (pipe2(errors, O_CLOEXEC))
		return result(-1);
	pid_t child = fork();
	if (child == 0) {
		char *arguments[] = {(char *)path, NULL}, *environment[] = {NULL};
		execve(path, arguments, environment);
		dprintf(errors[1], "%s", strerrorname_np(errno));
		_exit(127);
	}
	close(errors[1]);
	int status = 0;
	ssize_t length = child < 0 ? 0 : read(errors[0], answer, sizeof answer - 1);
	close(errors[0]);
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return result(-1);
	answer[length > 0 ? length : 0] = 0;
	if (length <= 0)
		snprintf(answer, sizeof answer, "ok");
}

static void connect_tcp(const char *host, int port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, host, &to.sin_addr);
	result(fd < 0 ? -1 : connect(fd, (struct sockaddr *)&to, sizeof to));
	if (fd >= 0)
		close(fd);
}

static void connect_abstract(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t length = strlen(name);
	memcpy(to.sun_path + 1, name, length);
	result(fd < 0 ? -1 : connect(fd, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + length));
	if (fd >= 0)
		close(fd);
}

/* In a child, because the answer may be a signal. What blocks is ended by SIGALRM. */
static void in_child(void (*run)(void *), void *argument)
{
	int lines[2];
	if (pipe2(lines, O_CLOEXEC))
		return result(-1);
	pid_t self = fork();
	if (self == 0) {
		pid_t child = getpid();
		alarm(5);
		run(argument);
		if (getpid() != child)
			_exit(0);
		(void)!write(lines[1], answer, strlen(answer));
		_exit(0);
	}
	close(lines[1]);
	int status = 0;
	ssize_t length = read(lines[0], answer, sizeof answer - 1);
	close(lines[0]);
	waitpid(self, &status, 0);
	answer[length > 0 ? length : 0] = 0;
	if (WIFSIGNALED(status))
		snprintf(answer, sizeof answer, "signal %d", WTERMSIG(status));
	else if (length <= 0)
		snprintf(answer, sizeof answer, "exit %d", WEXITSTATUS(status));
}

static void call(void *argument)
{
	long *n = argument;
	result(syscall(n[0], n[1], n[2], n[3], n[4], n[5], n[6]));
}

/* keyctl(2) of the 32-bit table, by the entry that a filter on 64-bit numbers does not see. */
static void int80(void *argument)
{
	long value;
	(void)argument;
	__asm__ volatile("int $0x80" : "=a"(value) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	snprintf(answer, sizeof answer, "%s", value > 0 ? "ok" : strerrorname_np(-value));
}

/* Every number with arguments that no call accepts, but for those that would not come back. */
static void sweep(long last)
{
	for (long call_number = 0; call_number <= last; call_number++) {
		if (call_number == SYS_vfork || call_number == SYS_pause || call_number == SYS_rt_sigreturn)
			continue;
		long arguments[7] = {call_number, -1, -1, -1, -1, -1, -1};
		in_child(call, arguments);
		printf("%ld %s\n", call_number, answer);
	}
	snprintf(answer, sizeof answer, "ok");
}

static void allocate(long bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return result(-1);
	for (long at = 0; at < bytes; at += 4096)
		memory[at] = 1;
	result(0);
}

/* How many children can exist at once. */
static void forks(long most)
{
	pid_t children[512];
	long count = 0;
	while (count < most && count < 512) {
		pid_t child = fork();
		if (child < 0)
			break;
		if (child == 0) {
			pause();
			_exit(0);
		}
		children[count++] = child;
	}
	for (long i = 0; i < count; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	snprintf(answer, sizeof answer, "%ld", count);
}

static void spin(long milliseconds)
{
	struct timespec used;
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	while (used.tv_sec * 1000 + used.tv_nsec / 1000000 < milliseconds);
	result(0);
}

static void files(long most)
{
	long count = 0;
	while (count < most && dup(0) >= 0)
		count++;
	int error = errno;
	close_range(3, ~0U, 0);
	snprintf(answer, sizeof answer, "%ld%s%s", count, count < most ? " " : "", count < most ? strerrorname_np(error) : "");
}

static void fill(const char *path, long bytes)
{
	static char block[65536];
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	ssize_t count = 0;
	for (long left = bytes; fd >= 0 && left > 0 && count >= 0; left -= count)
		count = write(fd, block, left < (long)sizeof block ? (size_t)left : sizeof block);
	result(fd < 0 ? -1 : count);
	if (fd >= 0)
		close(fd);
}

static void flood(long bytes)
{
	static char block[65536];
	memset(block, 'x', sizeof block);
	for (ssize_t count; bytes > 0; bytes -= count)
		if ((count = write(1, block, bytes < (long)sizeof block ? (size_t)bytes : sizeof block)) < 0)
			return result(-1);
	result(0);
}

/* Descriptors and where they lead, without the one that looks. */
static void descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	answer[0] = 0;
	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		char path[300], to[300];
		snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
		ssize_t length = readlink(path, to, sizeof to - 1);
		if (length < 0 || atoi(entry->d_name) == dirfd(directory))
			continue;
		to[length] = 0;
		snprintf(answer + strlen(answer), sizeof answer - strlen(answer), "%s=%s ", entry->d_name, strtok(to, "["));
	}
}

/* Three processes that want to stay: one as it is, one in a session of its own, one whose parent is gone. */
static void stay(void)
{
	if (fork() == 0)
		for (;;)
			pause();
	if (fork() == 0) {
		setsid();
		if (fork() == 0)
			for (;;)
				pause();
		_exit(0);
	}
	wait(NULL);
	printf("ready\n");
	fflush(stdout);
	for (;;)
		pause();
}

/* Does something to a file, says so, and goes on when stdin ends. */
static void hold(const char *what, const char *path)
{
	char byte;
	int watch = -1, fd = open(path, O_RDONLY | O_CLOEXEC);
	long held = fd;
	if (fd >= 0 && !strcmp(what, "flock"))
		held = flock(fd, LOCK_EX | LOCK_NB);
	else if (fd >= 0 && !strcmp(what, "watch") && (watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) >= 0)
		held = inotify_add_watch(watch, path, IN_OPEN);
	result(held);
	printf("%s\n", answer);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	if (watch >= 0) {
		char events[4096];
		result(read(watch, events, sizeof events));
	}
}

/* Two processes that stop themselves. */
static void stopped(void)
{
	if (fork() == 0)
		for (;;)
			raise(SIGSTOP);
	printf("ready\n");
	fflush(stdout);
	for (;;)
		raise(SIGSTOP);
}

/* A parent that no signal but the last one reaches, for as long as its child neither execs nor ends. */
static void vforked(void)
{
	printf("ready\n");
	fflush(stdout);
	if (vfork() == 0)
		for (;;)
			pause();
}

/* The same call many times; the answer is the last one. */
static void repeat(void *argument)
{
	long *n = argument, value = 0;
	for (long i = 0; i < n[0]; i++)
		value = syscall(n[1], n[2], n[3], n[4], n[5], n[6], 0);
	result(value);
}

static void *swap_page(void *page)
{
	for (;;) {
		munmap(page, 4096);
		mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	}
	return NULL;
}

/* Processes that are killed while calls of theirs wait for an answer, from memory that comes and goes. */
static void storm(long count)
{
	for (long i = 0; i < count; i++) {
		int ready[2];
		if (pipe(ready))
			return result(-1);
		pid_t child = fork();
		if (child == 0) {
			pthread_t thread;
			char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			pthread_create(&thread, NULL, swap_page, page);
			for (;;) {
				syscall(SYS_mount, page, page, page, 0, NULL);
				(void)!write(ready[1], "x", 1);
			}
		}
		char byte;
		(void)!read(ready[0], &byte, 1);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(ready[0]);
		close(ready[1]);
	}
	result(0);
}

static void *swap_last(void *path)
{
	for (volatile char *last = (char *)path + strlen(path) - 1;; *last ^= 'a' ^ 'b')
		;
	return NULL;
}

/* Opens PATHa or PATHb, which another thread makes of each other all the while; something else is an error. */
static void race(const char *path, long count)
{
	static char shared[4096];
	pthread_t thread;
	long opened = 0, absent = 0;

	snprintf(shared, sizeof shared, "%sa", path);
	pthread_create(&thread, NULL, swap_last, shared);
	for (long i = 0; i < count || !opened || !absent; i++) {
		int fd = open(shared, O_RDONLY | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT)
			return result(-1);
		*(fd < 0 ? &absent : &opened) += 1;
		close(fd);
	}
	result(0);
}

/* Opens PATH with each number below COUNT; the answer is the last one. */
static void opens(const char *path, long count)
{
	char name[4096];
	int fd = -1;
	for (long i = 0; i < count; i++) {
		snprintf(name, sizeof name, "%s%ld", path, i);
		fd = open(name, O_RDONLY | O_CLOEXEC);
	}
	result(fd);
}

/* Runs the rest of the operands under a filter that has a listener already. */
static void under(void)
{
	struct sock_filter allow = {0x06, 0, 0, 0x7fff0000};
	struct sock_fprog program = {1, &allow};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	/* Kept across exec: a listener that nobody holds is none. */
	int listener = syscall(SYS_seccomp, 1, 8, &program);
	if (listener < 0 || fcntl(listener, F_SETFD, 0))
		return result(-1);
	execv(operand[1], operand + 1);
	result(-1);
}

static void run(char *operation)
{
	static const struct { const char *name; int (*call)(const char *); } simple[] = { {"chroot", chroot}, {"unlink", unlink}, {"rmdir", rmdir}, {"chdir", chdir}};
	for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
		if (!strcmp(operation, simple[i].name))
			return result(simple[i].call(operand[1]));
#define IS(name) (!strcmp(operation, name))
	if (IS("read")) {
		char byte;
		int fd = open(operand[1], O_RDONLY | O_CLOEXEC);
		result(fd < 0 ? -1 : read(fd, &byte, 1));
		if (fd >= 0)
			close(fd);
	} else if (IS("stat")) {
		struct stat status;
		result(stat(operand[1], &status));
	} else if (IS("owner")) {
		struct stat status;
		if (stat(operand[1], &status))
			return result(-1);
		snprintf(answer, sizeof answer, "%u:%u %o", status.st_uid, status.st_gid, status.st_mode & 07777);
	} else if (IS("write")) {
		int fd = open(operand[1], O_WRONLY | O_APPEND | O_CLOEXEC);
		result(fd < 0 ? -1 : write(fd, "x", 1));
		if (fd >= 0)
			close(fd);
	} else if (IS("create")) {
		result_close(open(operand[1], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
	} else if (IS("mkdir")) {
		result(mkdir(operand[1], 0755));
	} else if (IS("rename")) {
		result(rename(operand[1], operand[2]));
	} else if (IS("symlink")) {
		result(symlink(operand[1], operand[2]));
	} else if (IS("link")) {
		result(link(operand[1], operand[2]));
	} else if (IS("fifo")) {
		result(mkfifo(operand[1], 0600));
	} else if (IS("mknod")) {
		result(mknod(operand[1], S_IFCHR | 0666, 0x103));
	} else if (IS("chmod")) {
		result(chmod(operand[1], number(2)));
	} else if (IS("list")) {
		list(operand[1]);
	} else if (IS("cat")) {
		cat(operand[1]);
	} else if (IS("exec")) {
		execute(operand[1]);
	} else if (IS("map")) {
		int fd = open(operand[1], O_RDONLY | O_CLOEXEC);
		void *memory = mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		result(memory == MAP_FAILED ? -1 : 0);
	} else if (IS("tcp")) {
		connect_tcp(operand[1], number(2));
	} else if (IS("abstract")) {
		connect_abstract(operand[1]);
	} else if (IS("kill")) {
		result(kill(number(1), 0));
	} else if (IS("mount")) {
		result(mount("none", operand[1], "tmpfs", 0, NULL));
	} else if (IS("sethostname")) {
		result(sethostname(operand[1], strlen(operand[1])));
	} else if (IS("hostname")) {
		gethostname(answer, sizeof answer);
	} else if (IS("terminal")) {
		char byte = 'x';
		int fd = open(operand[1], O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd >= 0)
			ioctl(fd, TIOCSCTTY, 0);
		result(fd < 0 ? -1 : ioctl(fd, TIOCSTI, &byte));
	} else if (IS("session")) {
		snprintf(answer, sizeof answer, "%s", getsid(0) == getpid() || getsid(0) == 1 ? "own" : "inherited");
	} else if (IS("groups")) {
		snprintf(answer, sizeof answer, "%d", getgroups(0, NULL));
	} else if (IS("ids")) {
		snprintf(answer, sizeof answer, "%u:%u", getuid(), getgid());
	} else if (IS("environment")) {
		answer[0] = 0;
		for (char **variable = environ; *variable; variable++)
			snprintf(answer + strlen(answer), sizeof answer - strlen(answer), "%s;", *variable);
	} else if (IS("descriptors")) {
		descriptors();
	} else if (IS("syscall")) {
		long arguments[7] = {0};
		for (int i = 0; i < 7 && operand[i + 1]; i++)
			arguments[i] = strtoul(operand[i + 1], NULL, 0);
		in_child(call, arguments);
	} else if (IS("repeat")) {
		long arguments[7] = {0};
		for (int i = 0; i < 7 && operand[i + 1]; i++)
			arguments[i] = strtoul(operand[i + 1], NULL, 0);
		repeat(arguments);
	} else if (IS("race")) {
		race(operand[1], number(2));
	} else if (IS("opens")) {
		opens(operand[1], number(2));
	} else if (IS("storm")) {
		storm(number(1));
	} else if (IS("under")) {
		under();
	} else if (IS("int80")) {
		in_child(int80, NULL);
	} else if (IS("sweep")) {
		sweep(number(1));
	} else if (IS("allocate")) {
		allocate(number(1));
	} else if (IS("forks")) {
		forks(number(1));
	} else if (IS("spin")) {
		spin(number(1));
	} else if (IS("files")) {
		files(number(1));
	} else if (IS("fill")) {
		fill(operand[1], number(2));
	} else if (IS("flood")) {
		flood(number(1));
	} else if (IS("stay")) {
		stay();
	} else if (IS("hold")) {
		hold(operand[1], operand[2]);
	} else if (IS("flock")) {
		int fd = open(operand[1], O_RDONLY | O_CLOEXEC);
		result(fd < 0 ? -1 : flock(fd, LOCK_EX | LOCK_NB));
	} else if (IS("lease")) {
		int fd = open(operand[1], O_RDONLY | O_CLOEXEC);
		result(fd < 0 ? -1 : fcntl(fd, F_SETLEASE, F_RDLCK));
	} else if (IS("load")) {
		struct sysinfo info;
		result(sysinfo(&info) ? -1 : info.totalram && info.procs ? 0 : -1);
	} else if (IS("stopped")) {
		stopped();
	} else if (IS("vforked")) {
		vforked();
	} else if (IS("exit")) {
		exit(number(1));
	} else if (IS("raise")) {
		raise(number(1));
	} else {
		snprintf(answer, sizeof answer, "no such operation");
	}
}

int main(int count, char **arguments)
{
	for (int i = 1; i < count; i++) {
		char *text = strdup(arguments[i]);
		memset(operand, 0, sizeof operand);
		for (int at = 0; at < OPERANDS && (operand[at] = strtok(at ? NULL : text, ",")); at++)
			;
		run(operand[0]);
		printf("%s %s\n", arguments[i], answer);
		fflush(stdout);
	}
	return 0;
}
