//! Where in a value something stands, kept on the stack while the value is walked and written out only for a fault.
//!
//! Neighbours: `arguments::strict` and `arguments::check` walk values. Never: follows a pointer.

/// A step from the value that holds it.
#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Root,
    Member(&'p str),
    Item(usize),
}

/// A value's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    above: Option<&'p Place<'p>>,
    step: Step<'p>,
}

impl<'p> Place<'p> {
    /// The whole value.
    pub(super) const ROOT: Self = Self { above: None, step: Step::Root };

    pub(super) const fn member(&'p self, name: &'p str) -> Self {
        Self { above: Some(self), step: Step::Member(name) }
    }

    pub(super) const fn item(&'p self, index: usize) -> Self {
        Self { above: Some(self), step: Step::Item(index) }
    }

    /// The JSON Pointer (RFC 6901).
    pub(super) fn pointer(&self) -> String {
        let mut steps = Vec::new();
        let mut place = Some(self);
        while let Some(at) = place {
            steps.push(at.step);
            place = at.above;
        }
        let mut pointer = String::new();
        for step in steps.iter().rev() {
            match step {
                Step::Root => {}
                Step::Member(name) => {
                    pointer.push('/');
                    pointer.push_str(&escaped(name));
                }
                Step::Item(index) => pointer.push_str(&format!("/{index}")),
            }
        }
        pointer
    }
}

/// A name as it stands in a JSON Pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
