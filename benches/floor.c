/* The floor under a launch: the system calls of a plan, in the plan's order, made by C that does nothing else.
 *
 * Neighbours: benches/speed/floor.rs writes the script that this reads, one call of the launcher a line, and compares
 * its own launches with it. Never: decides, allocates or parses while the clock runs; looks at a result, except that
 * every call that must succeed has to.
 *
 * Usage: floor SCRIPT. For each byte on stdin it makes one cell and writes the nanoseconds from the first call to the
 * last as a line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define MAX_LINES 512
#define MAX_FIELDS 12

struct line {
	char *field[MAX_FIELDS];
	int count;
};

static struct line script[MAX_LINES];
static int lines, after_clone;
static struct sock_fprog filter;
static char **payload_argv;
static char *payload_environment[64];
static int self_pidfd;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static long ok(const char *what, long result)
{
	if (result < 0)
		die(what);
	return result;
}

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 0);
}

static int opened(int directory, const char *path, int flags, int mode, uint64_t resolve)
{
	struct open_how how = { .flags = (unsigned)(flags | O_CLOEXEC), .mode = (unsigned)mode,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | resolve };
	return (int)ok(path, syscall(SYS_openat2, directory, path, &how, sizeof how));
}

/* A path of the cell below its root directory. */
static const char *below(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int look(int root, const char *path)
{
	return opened(root, below(path), O_PATH | O_NOFOLLOW, 0, RESOLVE_IN_ROOT);
}

static void attributes(int mount, uint64_t set, int recursive)
{
	struct mount_attr attr = { .attr_set = set };
	ok("mount_setattr", syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof attr));
}

static void attach(int mount, int target)
{
	ok("move_mount", syscall(SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

static int clone_tree(int source)
{
	return (int)ok("open_tree", syscall(SYS_open_tree, source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
}

/* `options` are pairs of key and value. */
static int filesystem(const char *type, char **options, int count, uint64_t attr)
{
	int context = (int)ok("fsopen", syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
	for (int i = 0; i + 1 < count; i += 2)
		ok(options[i], syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i], options[i + 1], 0));
	ok("fsconfig", syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int mount = (int)ok("fsmount", syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attr));
	close(context);
	return mount;
}

static void put(int directory, const char *path, const char *value)
{
	int file = (int)ok(path, openat(directory, path, O_WRONLY | O_CLOEXEC));
	ok(path, write(file, value, strlen(value)));
	close(file);
}

static void get(const char *path)
{
	char buffer[4096];
	int file = (int)ok(path, open(path, O_RDONLY | O_CLOEXEC));
	while (ok(path, read(file, buffer, sizeof buffer)) > 0)
		;
	close(file);
}

static void tie(void)
{
	struct pollfd launcher = { .fd = self_pidfd, .events = POLLIN };
	struct timespec now = { 0 };
	ok("pdeathsig", prctl(PR_SET_PDEATHSIG, SIGKILL));
	ok("ppoll", ppoll(&launcher, 1, &now, NULL));
}

static void maps(int proc, const char *inside, unsigned uid, unsigned gid)
{
	char map[64];
	put(proc, "self/setgroups", "deny");
	snprintf(map, sizeof map, "%s %u 1", inside, uid);
	put(proc, "self/uid_map", map);
	snprintf(map, sizeof map, "%s %u 1", inside, gid);
	put(proc, "self/gid_map", map);
}

static void drop_capabilities(void)
{
	struct { uint32_t version; int pid; } header = { 0x20080522, 0 };
	struct { uint32_t effective, permitted, inheritable; } data[2] = { { 0 } };
	ok("dumpable", prctl(PR_SET_DUMPABLE, 0));
	ok("securebits", prctl(PR_SET_SECUREBITS, 0xEF));
	for (int capability = 0; capability < 64 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
		;
	ok("capset", syscall(SYS_capset, &header, data));
}

static void namespaces(int count)
{
	static const char *const kinds[] = { "user", "mnt", "pid", "net", "ipc", "uts", "time", "cgroup" };
	char path[64], name[64];
	for (int i = count > 0 ? 0 : 7; i < (count > 0 ? count : 8); i++) {
		snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
		ok(path, readlink(path, name, sizeof name));
	}
}

/* What Landlock refuses in a cell: nothing is connected or bound. */
static void try_internet(int (*call)(int, const struct sockaddr *, socklen_t), int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int stream = (int)ok("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	call(stream, (struct sockaddr *)&address, sizeof address);
	close(stream);
}

static void verify(int landlock_net, int cgroup)
{
	struct stat at;
	struct statfs root;
	get("/proc/self/status");
	namespaces(7);
	get("/proc/self/net/dev");
	ok("statfs", statfs("/", &root)), ok("statfs", statfs("/", &root));
	lstat("/sys", &at), lstat("/proc/sys", &at), lstat("/proc/kcore", &at);
	open("/.toolcell/canary", O_RDONLY | O_CLOEXEC);
	if (landlock_net)
		try_internet(connect, 9), try_internet(bind, 0);
	if (cgroup) {
		namespaces(0);
		get("/proc/self/cgroup");
	}
	for (int number = 0; number < 7; number++)
		fcntl(number, F_GETFD);
	stat("/proc/self/fd", &at);
}

/* Runs in memory shared with init, which sleeps until the exec. */
static int payload(void *unused)
{
	sigset_t none;
	(void)unused;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(payload_argv[0], payload_argv, payload_environment);
	_exit(127);
}

static void tell(int channel, size_t length, const int *descriptors, int count)
{
	static char bytes[1024];
	char control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec part = { bytes, length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	if (count > 0) {
		size_t size = (size_t)count * sizeof(int);
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(size);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(header), descriptors, size);
	}
	ok("sendmsg", sendmsg(channel, &message, MSG_NOSIGNAL));
}

static void report(int channel, size_t length, int descriptor)
{
	tell(channel, length, &descriptor, descriptor >= 0);
}

/* Descriptors of a message; how many there are. */
static int receive(int channel, int *descriptors, size_t room)
{
	char bytes[512], control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec part = { bytes, sizeof bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	ok("recvmsg", recvmsg(channel, &message, MSG_CMSG_CLOEXEC));
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	size_t length = header ? header->cmsg_len - CMSG_LEN(0) : 0;
	if (length > room)
		die("too many descriptors");
	if (header)
		memcpy(descriptors, CMSG_DATA(header), length);
	return (int)(length / sizeof(int));
}

static void init(int stdio[3], int channel)
{
	static char stack[32 * 1024];
	int root = -1, scratch = -1, made = -1, ruleset = -1, cgroup = 0, net = 0;
	int joins[4], join_count = 0;
	ok("name", prctl(PR_SET_NAME, "floor-init"));
	tie();
	int proc = opened(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY, 0, 0);
	for (int i = after_clone; i < lines; i++) {
		char **f = script[i].field;
		const char *what = f[0];
		int kept = made;
		made = -1;
		if (!strcmp(what, "create-cgroup")) {
			join_count = receive(channel, joins, sizeof joins);
		} else if (!strcmp(what, "join-cgroup")) {
			for (int j = 0; j < join_count; j++)
				ok("join", write(joins[j], "0", 1));
			get("/proc/self/cgroup");
			ok("unshare", unshare(CLONE_NEWCGROUP));
			for (int j = 0; j < join_count; j++)
				close(joins[j]);
			cgroup = 1;
		} else if (!strcmp(what, "map-ids")) {
			maps(proc, f[1], (unsigned)number(f[2]), (unsigned)number(f[3]));
		} else if (!strcmp(what, "isolate-mounts")) {
			ok("slave", mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
		} else if (!strcmp(what, "mount-root")) {
			root = filesystem("tmpfs", (char *[]){ "size", "1m", "nr_inodes", "8192", "mode", "0755" }, 6, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
			int top = opened(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
			attach(root, top);
			close(top);
		} else if (!strcmp(what, "make-directory")) {
			ok(f[1], mkdirat(root, below(f[1]), (mode_t)number(f[2])));
		} else if (!strcmp(what, "make-file")) {
			int file = opened(root, below(f[1]), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, (int)number(f[2]), RESOLVE_IN_ROOT);
			static const char filling[4096];
			if (number(f[3])) {
				ok(f[1], write(file, filling, number(f[3])));
				close(file);
			} else {
				made = file;
			}
		} else if (!strcmp(what, "make-symlink")) {
			ok(f[1], symlinkat(f[2], root, below(f[1])));
		} else if (!strcmp(what, "bind")) {
			int source = opened(AT_FDCWD, f[1], O_PATH | (int)number(f[3]), 0, 0);
			int tree = clone_tree(source);
			close(source);
			attributes(tree, number(f[4]), 1);
			int target = kept >= 0 && !strcmp(script[i - 1].field[1], f[2]) ? kept : look(root, f[2]);
			attach(tree, target);
			close(target);
			close(tree);
			kept = kept == target ? -1 : kept;
		} else if (!strcmp(what, "hide")) {
			struct stat at;
			int covered = look(root, f[1]);
			ok(f[1], fstat(covered, &at));
			int empty = look(root, S_ISDIR(at.st_mode) ? "/.toolcell/directory" : "/.toolcell/file");
			int tree = clone_tree(empty);
			close(empty);
			attributes(tree, number(f[2]), 0);
			attach(tree, covered);
			close(tree);
			close(covered);
		} else if (!strcmp(what, "mount-scratch")) {
			scratch = filesystem("tmpfs", (char *[]){ "size", f[2], "nr_inodes", f[3], "mode", "1777" }, 6, number(f[4]));
			int target = look(root, f[1]);
			attach(scratch, target);
			close(target);
		} else if (!strcmp(what, "mount-proc")) {
			int fresh = filesystem("proc", (char *[]){ "subset", "pid", "hidepid", "invisible" }, 4, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
			int target = look(root, "/proc");
			attach(fresh, target);
			close(target);
			close(fresh);
		} else if (!strcmp(what, "pivot-root")) {
			ok("fchdir", fchdir(root));
			ok("pivot_root", syscall(SYS_pivot_root, ".", "."));
			ok("umount2", umount2(".", MNT_DETACH));
			ok("chdir", chdir("/"));
			attributes(root, MOUNT_ATTR_RDONLY, 0);
		} else if (!strcmp(what, "loopback-up")) {
			struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
			int any = (int)ok("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
			ok("lo", ioctl(any, SIOCSIFFLAGS, &lo));
			close(any);
		} else if (!strcmp(what, "set-hostname")) {
			ok("sethostname", sethostname(f[1], strlen(f[1])));
		} else if (!strcmp(what, "set-rlimit")) {
			struct rlimit old, limit;
			ok("getrlimit", getrlimit((int)number(f[1]), &old));
			limit.rlim_cur = limit.rlim_max = number(f[2]) < old.rlim_max ? number(f[2]) : old.rlim_max;
			ok("setrlimit", setrlimit((int)number(f[1]), &limit));
		} else if (!strcmp(what, "new-session")) {
			ok("setsid", setsid());
			ok("keyring", syscall(SYS_keyctl, 1, NULL));
		} else if (!strcmp(what, "close-descriptors")) {
			int copies[7], count = scratch >= 0 ? 7 : 6;
			int from[7] = { stdio[0], stdio[1], stdio[2], channel, proc, self_pidfd, scratch };
			for (int j = 0; j < count; j++)
				copies[j] = (int)ok("dup", fcntl(from[j], F_DUPFD_CLOEXEC, 16));
			for (int j = 0; j < 3; j++)
				close(stdio[j]);
			for (int j = 0; j < count; j++)
				ok("dup3", dup3(copies[j], j, j > 2 ? O_CLOEXEC : 0));
			close(root);
			ok("close_range", syscall(SYS_close_range, count, ~0U, 0));
			channel = 3, proc = 4, self_pidfd = 5, scratch = count > 6 ? 6 : -1;
		} else if (!strcmp(what, "set-ids")) {
			unsigned uid = (unsigned)number(f[1]), gid = (unsigned)number(f[2]);
			ok("setgroups", syscall(SYS_setgroups, 0, NULL));
			ok("setresgid", syscall(SYS_setresgid, gid, gid, gid));
			ok("setresuid", syscall(SYS_setresuid, uid, uid, uid));
			ok("dumpable", prctl(PR_SET_DUMPABLE, 1));
			tie();
		} else if (!strcmp(what, "unshare-user")) {
			unsigned uid = geteuid(), gid = getegid();
			ok("unshare", unshare(CLONE_NEWUSER));
			maps(proc, f[1], uid, gid);
			tie();
		} else if (!strcmp(what, "forbid-user-namespaces")) {
			put(proc, "sys/user/max_user_namespaces", "0");
		} else if (!strcmp(what, "drop-capabilities")) {
			drop_capabilities();
		} else if (!strcmp(what, "no-new-privileges")) {
			ok("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		} else if (!strcmp(what, "landlock")) {
			uint64_t attr[3] = { number(f[1]), number(f[2]), number(f[3]) };
			net = attr[1] != 0;
			ruleset = (int)ok("landlock", syscall(SYS_landlock_create_ruleset, attr, number(f[4]), 0));
		} else if (!strcmp(what, "landlock-rule")) {
			int path = opened(AT_FDCWD, f[1], O_PATH, 0, 0);
			struct landlock_path_beneath_attr rule = { .allowed_access = number(f[2]), .parent_fd = path };
			ok(f[1], syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
			close(path);
		} else if (!strcmp(what, "landlock-restrict")) {
			ok("restrict", syscall(SYS_landlock_restrict_self, ruleset, 0));
			close(ruleset);
		} else if (!strcmp(what, "seccomp")) {
			int listener = (int)ok("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &filter));
			report(channel, 10, listener);
			close(listener);
		} else if (!strcmp(what, "verify")) {
			close(proc);
			verify(net, cgroup);
		} else if (!strcmp(what, "exec")) {
			umask(022);
			ok(f[1], chdir(f[1]));
		}
		if (kept >= 0)
			close(kept);
	}
	report(channel, 600, scratch);
	close(scratch);
	pid_t child = (pid_t)ok("clone", clone(payload, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL));
	int status = 0;
	syscall(SYS_close_range, 0, 2, 0);
	while (waitpid(-1, &status, __WALL) != child)
		;
	report(channel, 24, -1);
	_exit(WEXITSTATUS(status));
}

/* Makes the cgroups of some lines of the script; how many there are. */
static int cgroups(int from, int to, const char *name, char paths[4][512])
{
	char path[4096];
	int count = 0;
	for (int i = from; i < to; i++) {
		char **f = script[i].field;
		if (!strcmp(f[0], "cgroup")) {
			snprintf(paths[count], sizeof paths[0], "%s/%s", f[1], name);
			ok(paths[count], mkdir(paths[count], 0777));
			count++;
		} else if (!strcmp(f[0], "cgroup-setting")) {
			snprintf(path, sizeof path, "%s/%s", paths[count - 1], f[1]);
			int file = open(path, O_WRONLY | O_CLOEXEC);
			if (file >= 0) {
				ok(path, write(file, f[2], strlen(f[2])));
				close(file);
			}
		}
	}
	return count;
}

static uint64_t cell(const char *name)
{
	struct timespec start, end;
	char paths[4][512], path[4096];
	int joins[4], join_count = 0, channel[2], in[2], out[2], err[2], pidfd = -1;
	uint64_t namespaces_wanted;
	clock_gettime(CLOCK_MONOTONIC, &start);
	ok("pipe", pipe2(in, O_CLOEXEC)), ok("pipe", pipe2(out, O_CLOEXEC)), ok("pipe", pipe2(err, O_CLOEXEC));
	namespaces_wanted = number(script[after_clone - 1].field[1]);
	int unified = !strcmp(script[after_clone - 1].field[2], "unified");
	if (unified)
		join_count = cgroups(0, after_clone, name, paths);
	ok("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel));
	struct clone_args args = { .flags = namespaces_wanted | CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD };
	if (join_count) {
		joins[0] = (int)ok(paths[0], open(paths[0], O_PATH | O_DIRECTORY | O_CLOEXEC));
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (unsigned)joins[0];
	}
	pid_t child = (pid_t)ok("clone3", syscall(SYS_clone3, &args, sizeof args));
	if (child == 0)
		init((int[]){ in[0], out[1], err[1] }, channel[1]);
	if (join_count)
		close(joins[0]);
	/* v1: made while init builds the root, which then writes itself into each. */
	if (!unified && (join_count = cgroups(after_clone, lines, name, paths))) {
		for (int j = 0; j < join_count; j++) {
			snprintf(path, sizeof path, "%s/tasks", paths[j]);
			joins[j] = (int)ok(path, open(path, O_WRONLY | O_CLOEXEC));
		}
		tell(channel[0], strlen(name), joins, join_count);
		for (int j = 0; j < join_count; j++)
			close(joins[j]);
	}
	close(channel[1]), close(in[0]), close(out[1]), close(err[1]), close(in[1]);
	/* Every message, then the end of the channel, then the end of init. */
	for (;;) {
		char bytes[32 * 1024], control[64];
		struct iovec part = { bytes, sizeof bytes };
		struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		ssize_t got = recvmsg(channel[0], &message, MSG_CMSG_CLOEXEC);
		if (got <= 0)
			break;
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		if (header && header->cmsg_type == SCM_RIGHTS)
			close(*(int *)CMSG_DATA(header));
	}
	int status;
	struct rusage usage;
	ok("wait4", wait4(child, &status, __WALL, &usage));
	if (status)
		fprintf(stderr, "floor: the cell ended with status %x\n", status), exit(1);
	close(channel[0]), close(out[0]), close(err[0]), close(pidfd);
	for (int j = 0; j < join_count; j++)
		ok(paths[j], rmdir(paths[j]));
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (uint64_t)(end.tv_sec - start.tv_sec) * 1000000000u + (uint64_t)end.tv_nsec - (uint64_t)start.tv_nsec;
}

/* Fields are separated by tabs. Lines `filter`, `argv` and `env` are kept aside. */
static void load(FILE *file)
{
	char *text = NULL;
	size_t size = 0;
	while (getline(&text, &size, file) > 0) {
		text[strcspn(text, "\n")] = 0;
		char *rest = strdup(text), *field = strsep(&rest, "\t");
		if (!strcmp(field, "filter")) {
			filter.filter = realloc(filter.filter, sizeof *filter.filter * (filter.len + 1u));
			struct sock_filter *next = &filter.filter[filter.len++];
			next->code = (uint16_t)number(strsep(&rest, "\t"));
			next->jt = (uint8_t)number(strsep(&rest, "\t"));
			next->jf = (uint8_t)number(strsep(&rest, "\t"));
			next->k = (uint32_t)number(strsep(&rest, "\t"));
		} else if (!strcmp(field, "argv")) {
			payload_argv = calloc(2, sizeof *payload_argv);
			payload_argv[0] = rest;
		} else if (!strcmp(field, "env")) {
			static int count;
			if (count < 63)
				payload_environment[count++] = rest;
		} else if (lines < MAX_LINES) {
			struct line *line = &script[lines++];
			for (; field && line->count < MAX_FIELDS; field = strsep(&rest, "\t"))
				line->field[line->count++] = field;
			if (!strcmp(line->field[0], "clone"))
				after_clone = lines;
		}
	}
}

int main(int argc, char **argv)
{
	FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
	if (!file)
		return fprintf(stderr, "usage: floor SCRIPT\n"), 2;
	load(file);
	if (!after_clone || !payload_argv || !filter.len)
		return fprintf(stderr, "floor: the script is not whole\n"), 2;
	fclose(file);
	signal(SIGPIPE, SIG_IGN);
	self_pidfd = (int)ok("pidfd_open", syscall(SYS_pidfd_open, getpid(), 0));
	char byte, name[64];
	for (unsigned round = 0; read(0, &byte, 1) == 1; round++) {
		snprintf(name, sizeof name, "toolcell-floor-%d-%u", (int)getpid(), round);
		printf("%llu\n", (unsigned long long)cell(name));
		fflush(stdout);
	}
	return 0;
}
