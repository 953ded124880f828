//! Steps from one version of a payload to the next, as the settings declare them.
//!
//! A payload is taken apart only along the paths of the steps. Everything else keeps its text, so no
//! number loses digits.

use crate::event::members::Members;
use serde_json::value::RawValue;

/// Longest path.
const MAX_SEGMENTS: usize = 32;

/// A place in a payload: names of members, and `*` for each item of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpcastPath(Vec<String>);

/// What a step does.
#[derive(Debug, Clone)]
pub enum Upcast {
    /// The member moves. Without it nothing happens; what the other path has already is replaced.
    Rename {
        from: UpcastPath,
        to: UpcastPath,
    },
    /// The member gets a value; one that is there is replaced unless `only_absent` is set.
    Set {
        path: UpcastPath,
        value: Box<RawValue>,
        only_absent: bool,
    },
    Remove(UpcastPath),
}

impl UpcastPath {
    /// Parses a member's name, such as `currency`, or a JSON pointer, such as `/payer/name` or
    /// `/items/*/price`.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence about the path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer
                .split('/')
                .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
                .collect(),
            None => vec![text.to_owned()],
        };
        if text.is_empty() {
            return Err(
                "is empty; write a member's name, or a JSON pointer such as /payer/name".to_owned(),
            );
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("has more than {MAX_SEGMENTS} parts"));
        }
        if segments.last().is_some_and(|last| last == "*") {
            return Err("ends with *; name a member of the items".to_owned());
        }
        Ok(Self(segments))
    }

    /// The parts.
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    /// Whether `*` stands only where both paths are the same.
    pub fn can_move_to(&self, to: &UpcastPath) -> bool {
        let shared = self.0.iter().zip(&to.0).take_while(|(a, b)| a == b);
        let shared = shared.count();
        let rest = self.0.iter().skip(shared).chain(to.0.iter().skip(shared));
        rest.into_iter().all(|segment| segment != "*")
    }
}

/// A part of a payload; texts are borrowed from the payload and from the steps.
enum Tree<'a> {
    Text(&'a RawValue),
    Object(Vec<(String, Tree<'a>)>),
    Array(Vec<Tree<'a>>),
}

/// Applies steps to a payload, one after the other.
///
/// # Errors
/// serde_json's, which do not occur for a payload of the log.
pub(super) fn apply(
    steps: &[&Upcast],
    data: &RawValue,
) -> Result<Box<RawValue>, serde_json::Error> {
    let mut tree = Tree::Text(data);
    for step in steps {
        match step {
            Upcast::Rename { from, to } => rename(&mut tree, &from.0, &to.0),
            Upcast::Set {
                path,
                value,
                only_absent,
            } => at_parents(&mut tree, &path.0, &mut |parent, name| {
                parent.put(name, Tree::Text(value), *only_absent);
            }),
            Upcast::Remove(path) => at_parents(&mut tree, &path.0, &mut |parent, name| {
                parent.take(name);
            }),
        }
    }
    let mut text = String::with_capacity(data.get().len() + 64);
    tree.write(&mut text)?;
    RawValue::from_string(text)
}

/// Moves a member below the deepest part that both paths share.
fn rename<'a>(tree: &mut Tree<'a>, from: &[String], to: &[String]) {
    if let ([first, from @ ..], [other, to @ ..]) = (from, to)
        && first == other
        && !from.is_empty()
        && !to.is_empty()
    {
        for part in tree.below(first) {
            rename(part, from, to);
        }
        return;
    }
    let mut moved = None;
    at_parents(tree, from, &mut |parent, name| moved = parent.take(name));
    let Some(moved) = moved else {
        return;
    };
    // Where the other path leads into what is no object, the member stays where it was.
    let mut unplaced = tree.place(to, moved);
    at_parents(tree, from, &mut |parent, name| {
        if let Some(value) = unplaced.take() {
            parent.put(name, value, false);
        }
    });
}

/// Calls `act` with each part that can have the path's last member, and the name of that member.
fn at_parents<'a>(tree: &mut Tree<'a>, path: &[String], act: &mut dyn FnMut(&mut Tree<'a>, &str)) {
    match path {
        [] => {}
        [name] => act(tree, name),
        [first, rest @ ..] => {
            for part in tree.below(first) {
                at_parents(part, rest, act);
            }
        }
    }
}

impl<'a> Tree<'a> {
    /// The members, if it is an object; takes its text apart.
    fn members(&mut self) -> Option<&mut Vec<(String, Tree<'a>)>> {
        if let Tree::Text(text) = self
            && text.get().starts_with('{')
        {
            let Members(members) = serde_json::from_str(text.get()).ok()?;
            let members = members
                .into_iter()
                .map(|(name, text)| (name, Tree::Text(text)));
            *self = Tree::Object(members.collect());
        }
        match self {
            Tree::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The items, if it is an array; takes its text apart.
    fn items(&mut self) -> Option<&mut Vec<Tree<'a>>> {
        if let Tree::Text(text) = self
            && text.get().starts_with('[')
        {
            let items: Vec<&'a RawValue> = serde_json::from_str(text.get()).ok()?;
            *self = Tree::Array(items.into_iter().map(Tree::Text).collect());
        }
        match self {
            Tree::Array(items) => Some(items),
            _ => None,
        }
    }

    fn child(&mut self, name: &str) -> Option<&mut Tree<'a>> {
        let member = self.members()?.iter_mut().find(|(other, _)| other == name);
        member.map(|(_, value)| value)
    }

    /// The parts that a segment of a path leads to.
    fn below(&mut self, segment: &str) -> Vec<&mut Tree<'a>> {
        match segment {
            "*" => self.items().into_iter().flatten().collect(),
            name => self.child(name).into_iter().collect(),
        }
    }

    fn take(&mut self, name: &str) -> Option<Tree<'a>> {
        let members = self.members()?;
        let place = members.iter().position(|(other, _)| other == name)?;
        Some(members.remove(place).1)
    }

    fn put(&mut self, name: &str, value: Tree<'a>, only_absent: bool) {
        let Some(members) = self.members() else {
            return;
        };
        match members.iter_mut().find(|(other, _)| other == name) {
            Some(_) if only_absent => {}
            Some((_, old)) => *old = value,
            None => members.push((name.to_owned(), value)),
        }
    }

    /// Puts a value at a path, whose parents are made where they lack; gives it back if one of them is no
    /// object.
    fn place(&mut self, path: &[String], value: Tree<'a>) -> Option<Tree<'a>> {
        let Some((first, rest)) = path.split_first() else {
            return Some(value);
        };
        let Some(members) = self.members() else {
            return Some(value);
        };
        let place = match members.iter().position(|(name, _)| name == first) {
            Some(place) => place,
            None => {
                members.push((first.clone(), Tree::Object(Vec::new())));
                members.len() - 1
            }
        };
        let (_, member) = members.get_mut(place)?;
        if rest.is_empty() {
            *member = value;
            return None;
        }
        member.place(rest, value)
    }

    fn write(&self, out: &mut String) -> Result<(), serde_json::Error> {
        match self {
            Tree::Text(text) => out.push_str(text.get()),
            Tree::Array(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    item.write(out)?;
                }
                out.push(']');
            }
            Tree::Object(members) => {
                out.push('{');
                for (place, (name, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::to_string(name)?);
                    out.push(':');
                    value.write(out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> UpcastPath {
        UpcastPath::parse(text).unwrap()
    }

    fn value(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn rename_to(from: &str, to: &str) -> Upcast {
        let (from, to) = (path(from), path(to));
        Upcast::Rename { from, to }
    }

    fn set(at: &str, text: &str, only_absent: bool) -> Upcast {
        Upcast::Set {
            path: path(at),
            value: value(text),
            only_absent,
        }
    }

    fn upcast(data: &str, steps: &[Upcast]) -> String {
        let steps: Vec<&Upcast> = steps.iter().collect();
        apply(&steps, &value(data)).unwrap().get().to_owned()
    }

    #[test]
    fn steps_change_what_they_name_and_leave_the_text_of_the_rest() {
        let data = r#"{"a": 1.50, "n":12345678901234567890123, "o":{"x":[ 1,2 ]}}"#;
        for (step, expected) in [
            (
                rename_to("a", "b"),
                r#"{"n":12345678901234567890123,"o":{"x":[ 1,2 ]},"b":1.50}"#,
            ),
            (
                rename_to("/a", "/o/p/q"),
                r#"{"n":12345678901234567890123,"o":{"x":[ 1,2 ],"p":{"q":1.50}}}"#,
            ),
            (rename_to("a", "n"), r#"{"n":1.50,"o":{"x":[ 1,2 ]}}"#),
            (
                rename_to("a", "/n/x"),
                r#"{"n":12345678901234567890123,"o":{"x":[ 1,2 ]},"a":1.50}"#,
            ),
            (
                Upcast::Remove(path("/o/x")),
                r#"{"a":1.50,"n":12345678901234567890123,"o":{}}"#,
            ),
            (
                set("a", "\"é\"", false),
                r#"{"a":"é","n":12345678901234567890123,"o":{"x":[ 1,2 ]}}"#,
            ),
            (
                set("c", "{}", true),
                r#"{"a":1.50,"n":12345678901234567890123,"o":{"x":[ 1,2 ]},"c":{}}"#,
            ),
        ] {
            assert_eq!(upcast(data, &[step]), expected);
        }
    }

    #[test]
    fn what_is_not_there_changes_nothing() {
        let data = r#"{"a":1,"b":[1]}"#;
        for step in [
            rename_to("x", "y"),
            rename_to("/a/x", "/a/y"),
            rename_to("/b/*/x", "/b/*/y"),
            Upcast::Remove(path("x")),
            set("a", "2", true),
            set("/x/y", "2", false),
            set("/a/y", "2", false),
        ] {
            assert_eq!(upcast(data, &[step]), data);
        }
    }

    #[test]
    fn a_star_stands_for_each_item() {
        let data = r#"{"items":[{"p":1},{"p":2,"c":"USD"},3]}"#;
        let steps = [
            rename_to("/items/*/p", "/items/*/price/amount"),
            set("/items/*/c", "\"BRL\"", true),
        ];
        let expected =
            r#"{"items":[{"price":{"amount":1},"c":"BRL"},{"c":"USD","price":{"amount":2}},3]}"#;
        assert_eq!(upcast(data, &steps), expected);
        assert!(!path("/a/*/b").can_move_to(&path("/c")));
        assert!(path("/a/*/b").can_move_to(&path("/a/*/c/d")));
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for (text, words) in [
            ("", "empty"),
            ("/a/*", "ends with *"),
            (&"/a".repeat(33), "32"),
        ] {
            assert!(
                UpcastPath::parse(text).unwrap_err().contains(words),
                "{text}"
            );
        }
        assert_eq!(path("/a~1b/c~0d").segments(), ["a/b", "c~d"]);
    }
}
