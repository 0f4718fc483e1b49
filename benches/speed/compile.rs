//! A compiler in a cell, with and without a record of the files that its cell lacks: the same profile but for `observe`.
//!
//! Neighbours: `main` prints the row, `whole` starts the processes. Never: counts what a shell adds.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::measure::{self, Result, Row, pairs};
use crate::whole::run;

/// What each part of the file holds, with its number for `@`: a table of words, a list, and some arithmetic.
const PART: &str = r#"
struct item@ {
	struct item@ *next;
	char name[24];
	uint64_t weight;
	double share;
};

static struct item@ *items@;
static size_t count@;

static uint64_t hash@(const char *text, size_t length)
{
	uint64_t value = UINT64_C(1469598103934665603) + @;

	for (size_t at = 0; at < length; at++) {
		value ^= (unsigned char)text[at];
		value *= UINT64_C(1099511628211);
	}
	return value;
}

int insert@(const char *name, uint64_t weight)
{
	struct item@ **place = &items@;
	struct item@ *made;

	while (*place != NULL && strcmp((*place)->name, name) < 0)
		place = &(*place)->next;
	if (*place != NULL && strcmp((*place)->name, name) == 0) {
		(*place)->weight += weight;
		return 0;
	}
	made = malloc(sizeof *made);
	if (made == NULL) {
		fprintf(stderr, "insert@: %s\n", strerror(errno));
		return -1;
	}
	snprintf(made->name, sizeof made->name, "%s", name);
	made->weight = weight ^ (hash@(name, strlen(name)) & 0xff);
	made->share = 0;
	made->next = *place;
	*place = made;
	count@++;
	return 1;
}

double balance@(void)
{
	double total = 0, spread = 0;

	for (const struct item@ *item = items@; item != NULL; item = item->next)
		total += (double)item->weight;
	for (struct item@ *item = items@; item != NULL; item = item->next) {
		item->share = total > 0 ? (double)item->weight / total : 0;
		spread += fabs(item->share - 1.0 / (double)count@);
	}
	return spread;
}

size_t parse@(const char *line, char separator)
{
	size_t found = 0;

	while (*line != '\0') {
		char word[24];
		size_t length = 0;

		while (isspace((unsigned char)*line))
			line++;
		while (*line != '\0' && *line != separator && length + 1 < sizeof word)
			word[length++] = (char)tolower((unsigned char)*line++);
		word[length] = '\0';
		if (length > 0 && insert@(word, (uint64_t)strtoul(word, NULL, 10)) >= 0)
			found++;
		if (*line != '\0')
			line++;
	}
	return found;
}

void release@(void (*last)(const char *, uint64_t))
{
	while (items@ != NULL) {
		struct item@ *item = items@;

		items@ = item->next;
		if (last != NULL)
			last(item->name, item->weight);
		free(item);
	}
	count@ = 0;
}
"#;
const INCLUDES: &str = "ctype errno fcntl inttypes limits math signal stdarg stdbool stddef stdint stdio stdlib string \
                        sys/socket sys/stat sys/types sys/wait time unistd";
const LINES: usize = 3000;
/// A compilation takes a second, so that a median that comes out the same again takes minutes.
const LONGEST: Duration = Duration::from_secs(150);

/// C as people write it, about 3000 lines.
fn source() -> Result<String> {
    let mut text = String::new();
    for name in INCLUDES.split_whitespace() {
        writeln!(text, "#include <{name}.h>")?;
    }
    for part in 0..LINES / PART.lines().count() {
        text.push_str(&PART.replace('@', &part.to_string()));
    }
    Ok(text)
}

pub(crate) fn row(toolcell: &Path, files: &Path, rounds: usize) -> Result<Row> {
    let directory = files.join("tmp").join(format!("compile-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let file = directory.join("mid-sized.c");
    std::fs::write(&file, source()?)?;
    let observing = directory.join("observing.toml");
    std::fs::write(&observing, "extends = \"default\"\nobserve = \"files\"\n")?;
    let cc = |profile: &Path| {
        let mut command = Command::new(toolcell);
        command.args(["exec", "--profile"]).arg(profile).arg("--read").arg(&file);
        run(command.args(["--", "cc", "-O2", "-c", "-o", "/tmp/mid-sized.o"]).arg(&file))
    };
    let (mut told, mut untold) = (|| cc(&observing), || cc(Path::new("default")));
    let measured = pairs(rounds.div_ceil(4), LONGEST, [&mut told, &mut untold]);
    std::fs::remove_dir_all(&directory)?;
    let what = "cc -O2 of 3000 lines with `observe = \"files\"` against without";
    Ok(measure::ratio_of_pairs(what, &measured?, 1.03))
}
