//! What an expression refers to.

use std::collections::BTreeMap;

/// Fields of a map, and fields of these: what an expression refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    whole: bool,
    fields: BTreeMap<String, FieldSet>,
}

/// All there is.
pub(super) static WHOLE: FieldSet = FieldSet {
    whole: true,
    fields: BTreeMap::new(),
};

impl FieldSet {
    /// Adds the field that these names lead to, and all that is below.
    pub(super) fn add(&mut self, path: &[&str]) {
        match path {
            [] => self.whole = true,
            [field, rest @ ..] => {
                let set = self.fields.entry((*field).to_owned()).or_default();
                set.add(rest);
            }
        }
    }

    /// What is referred to below `field`.
    pub(super) fn below(&self, field: &str) -> Option<&FieldSet> {
        if self.whole {
            return Some(&WHOLE);
        }
        self.fields.get(field)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expression;
    use super::*;

    #[test]
    fn only_what_is_referred_to_is_wanted() {
        let wanted = |text| Expression::parse(text).unwrap().data;
        let set = |paths: &[&[&str]]| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.add(path));
            set
        };
        assert_eq!(wanted("eventType == 'a'"), set(&[]));
        assert_eq!(
            wanted("eventData.a.b == 1 && has(eventData.c)"),
            set(&[&["a", "b"], &["c"]])
        );
        assert_eq!(wanted("eventData['a'] == 1"), set(&[&[]]));
        assert_eq!(
            wanted("eventData.a.exists(i, i == eventData.b.c)"),
            set(&[&["a"], &["b", "c"]])
        );
    }
}
