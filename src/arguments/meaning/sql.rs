//! `sql`: one statement of SQL of an allowed kind, whatever comments, common table expressions or subqueries are around it.
//!
//! The text is taken apart by a parser, for the dialect that is named. Where none is, what dialects read in different ways is
//! refused: who executes the text must not find another statement in it.
//!
//! Neighbours: `arguments::meaning`. Never: knows what a function does, or which tables there are.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use sqlparser::ast::{Query, Select, Statement, Visit as _, Visitor};
use sqlparser::dialect::{Dialect, GenericDialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::{Reader, Unmeant, listed};
use crate::arguments::document::below;

/// Bytes of a statement, at most.
const MOST: usize = 64 * 1024;
/// Words and signs that can nest, at most: what the parser makes of them is walked step by step into the depth.
const MOST_NESTING: usize = 600;
/// Parentheses inside each other, at most.
const MOST_DEPTH: usize = 30;

/// The kinds that can be allowed.
const KINDS: &[&str] = &[
    "SELECT",
    "SELECT INTO",
    "SELECT FOR UPDATE",
    "INSERT",
    "REPLACE",
    "UPDATE",
    "DELETE",
    "MERGE",
    "TRUNCATE",
    "CREATE",
    "ALTER",
    "DROP",
    "EXPLAIN",
    "DESCRIBE",
    "PRAGMA",
    "SHOW",
    "SET",
    "USE",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "ANALYZE",
    "VACUUM",
    "CALL",
    "COPY",
    "GRANT",
    "REVOKE",
    "ATTACH",
    "DETACH",
];

const DIALECTS: &[&str] = &["sqlite", "postgresql", "mysql"];

/// The kinds of statements.
#[derive(Debug)]
pub(in crate::arguments) struct Allowed {
    kinds: Vec<String>,
    dialect: Option<String>,
}

impl Allowed {
    pub(super) fn read(reader: &mut Reader<'_>, value: &Value) -> Option<Self> {
        let members = reader.table(value, &["execute", "dialect"])?;
        let mut kinds = Vec::new();
        for (at, text) in reader.texts(members, "execute")? {
            let kind = text.to_uppercase();
            match KINDS.contains(&kind.as_str()) {
                true => kinds.push(kind),
                false => {
                    let hint = format!("kinds: {}", KINDS.join(", "));
                    reader.mistake(at, "must be a kind of statement", Some(hint));
                }
            }
        }
        let dialect = members.get("dialect").map(|value| value.as_str().unwrap_or_default().to_owned());
        if dialect.as_ref().is_some_and(|name| !DIALECTS.contains(&name.as_str())) {
            let told = format!("must be one of {}", listed(DIALECTS.iter().copied()));
            reader.mistake(below(reader.at, "dialect"), told, None);
        }
        Some(Self { kinds, dialect })
    }

    pub(super) fn judge(&self, text: &str) -> Result<(), Unmeant> {
        let kinds = kinds(text, self.dialect.as_deref()).map_err(Unmeant::new)?;
        let others: Vec<&String> = kinds.iter().filter(|kind| !self.kinds.contains(kind)).collect();
        let Some(first) = others.first() else { return Ok(()) };
        let allowed = listed(self.kinds.iter().map(String::as_str));
        let told = format!("must be SQL that executes {allowed}, and executes `{first}`");
        let known = others.iter().all(|kind| KINDS.contains(&kind.as_str()));
        let wider = known.then(|| {
            let all: Vec<&String> = self.kinds.iter().chain(others).collect();
            match &self.dialect {
                Some(dialect) => json!({"execute": all, "dialect": dialect}),
                None => json!({"execute": all}),
            }
        });
        Err(Unmeant { told, wider })
    }
}

/// The kinds of the only statement of a text and of those within it.
fn kinds(text: &str, dialect: Option<&str>) -> Result<Vec<String>, String> {
    if text.len() > MOST {
        return Err(format!("must be SQL of at most {MOST} bytes"));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err("must be SQL without control characters".to_owned());
    }
    // MySQL executes what stands in such a comment, and to others it is one.
    if text.contains("/*!") || text.contains("/*M!") {
        return Err("must be SQL without `/*!`, which only some take for a comment".to_owned());
    }
    let parser: &dyn Dialect = match dialect {
        Some("sqlite") => &SQLiteDialect {},
        Some("postgresql") => &PostgreSqlDialect {},
        Some("mysql") => &MySqlDialect {},
        _ => {
            unambiguous(text)?;
            &GenericDialect {}
        }
    };
    let unread = |_| "must be SQL that can be taken apart".to_owned();
    let tokens = Tokenizer::new(parser, text).tokenize_with_location().map_err(unread)?;
    bounded(tokens.iter().map(|token| &token.token))?;
    let parsed = Parser::new(parser)
        .with_recursion_limit(MOST_DEPTH + 20)
        .with_tokens_with_locations(tokens)
        .parse_statements();
    let statements = parsed.map_err(|error| {
        let why: String = error.to_string().chars().filter(|c| !c.is_control()).take(120).collect();
        format!("must be SQL that can be taken apart ({why})")
    })?;
    match statements.as_slice() {
        [one] => {
            let mut found = Kinds(Vec::new());
            let ControlFlow::Continue(()) = one.visit(&mut found) else {
                return Err("must be SQL".to_owned());
            };
            Ok(found.0)
        }
        several => Err(format!("must be one statement of SQL, and is {}", several.len())),
    }
}

/// Refuses what one dialect takes for a comment, a string or an escape, and another for something else.
fn unambiguous(text: &str) -> Result<(), String> {
    let told = |what: &str| Err(format!("must be SQL without {what}, which dialects read in different ways"));
    if text.contains('\\') {
        return told("a backslash");
    }
    if text.contains('#') {
        return told("`#`");
    }
    if text.split('$').skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())) {
        return told("`$` before anything but a number");
    }
    if text.split("--").skip(1).any(|rest| !rest.is_empty() && !rest.starts_with([' ', '\n', '\t', '\r'])) {
        return told("`--` without a blank behind it");
    }
    if text.split("/*").skip(1).any(|comment| !comment.contains("*/")) {
        return told("`/*` within a comment or without its end");
    }
    Ok(())
}

/// Refuses what would be deep when it is parsed.
fn bounded<'t>(tokens: impl Iterator<Item = &'t Token>) -> Result<(), String> {
    let (mut nesting, mut depth, mut deepest) = (0_usize, 0_usize, 0_usize);
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Comma
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Whitespace(_)
            | Token::EOF => {}
            _ => nesting += 1,
        }
        deepest = deepest.max(depth);
    }
    if nesting > MOST_NESTING || deepest > MOST_DEPTH {
        return Err(format!(
            "must be SQL with at most {MOST_NESTING} words and signs, and {MOST_DEPTH} parentheses inside each other"
        ));
    }
    Ok(())
}

/// Collects kinds.
struct Kinds(Vec<String>);

impl Kinds {
    fn add(&mut self, kind: String) {
        if !self.0.contains(&kind) {
            self.0.push(kind);
        }
    }
}

impl Visitor for Kinds {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        // Every other kind begins with its name when it is written.
        let written = statement.to_string();
        let first = written.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        self.add(match statement {
            Statement::Query(_) => "SELECT".to_owned(),
            _ => first.to_uppercase(),
        });
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !query.locks.is_empty() {
            self.add("SELECT FOR UPDATE".to_owned());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() {
            self.add("SELECT INTO".to_owned());
        }
        ControlFlow::Continue(())
    }
}
