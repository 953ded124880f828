//! The checks of a parsed expression: its names, and limits that bound the time of an evaluation.
//!
//! Of an operation the time is at most proportional to the size of its operands. Additions and lists
//! copy these, so their number is bounded. A comprehension (`all`, `exists`, `exists_one`, `filter`, `map`) repeats
//! what is in its body: there `eventData` is only compared with `==` and `!=`, which takes no longer
//! than the smaller operand is large, and a comprehension contains no other.

use super::field_set::FieldSet;
use super::names::{EVENT_DATA, VARIABLES, check_function, check_variable};
use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, operators};

/// Levels of nesting.
pub(super) const MAX_DEPTH: u16 = 20;
/// Operators, operands and calls, with those that a comprehension consists of.
const MAX_NODES: usize = 50;
/// Uses of `+`, and elements of lists and maps that are no literals.
const MAX_COPIES: usize = 10;

/// Checks an expression and tells what it refers to in `eventData`.
pub(super) fn check_tree(tree: &IdedExpr) -> Result<FieldSet, String> {
    let mut check = TreeCheck::default();
    check.node(tree, 1, &Scope::Outside)?;
    Ok(check.data)
}

/// Where a node stands.
enum Scope<'t> {
    Outside,
    /// In what a comprehension goes through.
    Range,
    /// In what it does with an element, with the variables that only exist there.
    Body([&'t str; 3]),
}

#[derive(Default)]
struct TreeCheck {
    nodes: usize,
    copies: usize,
    data: FieldSet,
}

impl TreeCheck {
    fn node<'t>(
        &mut self,
        node: &'t IdedExpr,
        depth: usize,
        scope: &Scope<'t>,
    ) -> Result<(), String> {
        if let Some(path) = data_path(node) {
            if matches!(scope, Scope::Body(_)) {
                return Err(format!(
                    "uses {EVENT_DATA} inside a comprehension, where it can only be compared with \
                     == and !="
                ));
            }
            return self.data_field(&path, depth);
        }
        self.count(1, depth)?;
        let depth = depth + 1;
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => match scope {
                Scope::Body(variables) if variables.contains(&name.as_str()) => Ok(()),
                _ => check_variable(name),
            },
            Expr::Select(select) => self.node(&select.operand, depth, scope),
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                check_function(name, call.target.is_some(), call.args.len())?;
                if name == operators::ADD {
                    self.copy()?;
                }
                if let Some(target) = &call.target {
                    self.node(target, depth, scope)?;
                }
                let mut may_be_data = matches!(scope, Scope::Body(_))
                    && [operators::EQUALS, operators::NOT_EQUALS].contains(&name);
                for argument in &call.args {
                    match data_path(argument).filter(|_| may_be_data) {
                        Some(path) => {
                            may_be_data = false;
                            self.data_field(&path, depth)?;
                        }
                        None => self.node(argument, depth, scope)?,
                    }
                }
                Ok(())
            }
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|element| self.element(element, depth, scope)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.element(&entry.key, depth, scope)?;
                    self.element(&entry.value, depth, scope)
                }
                EntryExpr::StructField(_) => Err("makes a struct".to_owned()),
            }),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth, scope),
            Expr::Struct(made) => Err(format!("makes a {}; there are no types", made.type_name)),
            Expr::Unspecified => Err("is not CEL".to_owned()),
        }
    }

    fn comprehension<'t>(
        &mut self,
        it: &'t ComprehensionExpr,
        depth: usize,
        scope: &Scope<'t>,
    ) -> Result<(), String> {
        if !matches!(scope, Scope::Outside) {
            return Err(
                "has a comprehension (all, exists, exists_one, filter, map) inside another one; \
                 map(x, condition, result) filters too"
                    .to_owned(),
            );
        }
        let second = it.iter_var2.as_deref().unwrap_or(&it.iter_var);
        let variables = [it.iter_var.as_str(), second, it.accu_var.as_str()];
        if let Some(name) = variables.iter().find(|name| VARIABLES.contains(name)) {
            return Err(format!(
                "names the element of a comprehension {name}, as a field of the event"
            ));
        }
        let body = Scope::Body(variables);
        self.node(&it.iter_range, depth, &Scope::Range)?;
        self.node(&it.accu_init, depth, &Scope::Range)?;
        self.node(&it.loop_cond, depth, &body)?;
        self.node(&it.loop_step, depth, &body)?;
        self.node(&it.result, depth, &body)
    }

    fn element<'t>(
        &mut self,
        node: &'t IdedExpr,
        depth: usize,
        scope: &Scope<'t>,
    ) -> Result<(), String> {
        if !matches!(node.expr, Expr::Literal(_)) {
            self.copy()?;
        }
        self.node(node, depth, scope)
    }

    fn copy(&mut self) -> Result<(), String> {
        self.copies += 1;
        if self.copies > MAX_COPIES {
            return Err(format!(
                "has more than {MAX_COPIES} additions and elements of lists that are no literals"
            ));
        }
        Ok(())
    }

    fn data_field(&mut self, path: &[&str], depth: usize) -> Result<(), String> {
        self.count(path.len() + 1, depth + path.len())?;
        self.data.add(path);
        Ok(())
    }

    fn count(&mut self, nodes: usize, depth: usize) -> Result<(), String> {
        self.nodes += nodes;
        if depth > usize::from(MAX_DEPTH) {
            return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
        }
        if self.nodes > MAX_NODES {
            return Err(format!(
                "has more than {MAX_NODES} operators, operands and calls; a comprehension counts \
                 for several"
            ));
        }
        Ok(())
    }
}

/// The names after `eventData` in `eventData.a.b`, and in `has(eventData.a.b)`.
fn data_path(node: &IdedExpr) -> Option<Vec<&str>> {
    let mut path = Vec::new();
    let mut at = node;
    loop {
        match &at.expr {
            Expr::Select(select) => {
                path.push(select.field.as_str());
                at = &select.operand;
            }
            Expr::Ident(name) if name == EVENT_DATA => {
                path.reverse();
                return Some(path);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expression;

    fn refusal(text: &str) -> String {
        match Expression::parse(text) {
            Ok(_) => panic!("{text} is accepted"),
            Err(error) => error.reason,
        }
    }

    #[test]
    fn what_is_never_true_or_false_is_no_condition() {
        for text in [
            "1",
            "'true'",
            "null",
            "[true]",
            "{'a': true}",
            "userId",
            "1 + 1",
            "-1",
            "size(userId)",
            "string(true)",
            "timestamp.getHours()",
            "userId == 'a' ? 1 : 2",
        ] {
            assert!(Expression::parse(text).is_ok(), "{text}");
            let refused = Expression::parse_condition(text).unwrap_err();
            assert!(
                refused.to_string().contains("never true or false"),
                "{refused}"
            );
        }
        for text in [
            "true",
            "!(userId == 'a')",
            "eventData.vip",
            "has(eventData.vip)",
            "eventData['vip']",
            "bool(eventData.vip)",
            "'a' in eventData.tags",
            "userId.startsWith('a')",
            "eventData.tags.exists(t, t == 'a')",
            "userId == 'a' ? eventData.vip : false",
        ] {
            assert!(Expression::parse_condition(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused() {
        for (text, reason) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("eventType ==", "at line 1, byte 13: "),
            ("eventType ==\n 'a' 'b'", "at line 2, byte 6: "),
            ("eventType = 'a'", "at line 1, byte 11: "),
            ("eventType == 'a", "at line 1, byte 14: "),
            ("ü == 1", "at line 1, byte 1: "),
            ("plan == 'pro'", "plan, which is not one of id, eventType"),
            ("eventData.a.exists(i, j == 1)", "refers to j"),
            ("eventData.a.exists(i, true) && i == 1", "refers to i"),
            ("lower(userId) == 'a'", "calls lower with 1 arguments"),
            ("userId.matches('a')", "calls matches with 1"),
            ("size(userId, 1) == 1", "calls size with 2"),
            (
                "timestamp.getHours('Europe/Rome') == 1",
                "calls getHours with 1",
            ),
            ("eventData.a.exists(1)", "calls exists with 1"),
            ("optional.of(1) == 1", "calls of with 1"),
            ("eventData.?a == 1", "at line 1"),
            ("type(userId) == string", "calls type"),
            ("Thing{a: 1} == 1", "makes a Thing"),
            (
                "eventData.a.exists(i, i.exists(j, j == 1))",
                "inside another one",
            ),
            (
                "eventData.a.filter(i, i > 1).map(i, i + 1) == []",
                "inside another one",
            ),
            (
                "eventData.a.exists(id, id == 1)",
                "names the element of a comprehension id",
            ),
            (
                "eventData.a.exists(i, i in eventData.b)",
                "can only be compared",
            ),
            (
                "eventData.a.exists(i, eventData.a == eventData.b)",
                "can only be compared",
            ),
            (
                "eventData.a.exists(i, i < eventData.b)",
                "can only be compared",
            ),
            (
                "eventData.a.map(i, eventData.b + i) == []",
                "can only be compared",
            ),
            (
                "eventData.a.exists(i, has(eventData.b))",
                "can only be compared",
            ),
        ] {
            let found = refusal(text);
            assert!(found.contains(reason), "{text}: {found}");
        }
    }

    #[test]
    fn the_limits_are_exact() {
        let of = |part: &'static str, count: usize| vec![part; count];
        for (fits, exceeds, reason) in [
            (
                format!("'{}' == userId", "ü".repeat(988)),
                format!("'{}' == userId", "ü".repeat(989)),
                "longer than 1000 characters",
            ),
            (
                format!("eventData{}", ".a".repeat(19)),
                format!("eventData{}", ".a".repeat(20)),
                "deeper than 20",
            ),
            (
                format!("{}true", "!-".repeat(9) + "!"),
                format!("{}true", "!-".repeat(10)),
                "deeper than 20",
            ),
            (
                format!("[{}]", of("1", 49).join(",")),
                format!("[{}]", of("1", 50).join(",")),
                "more than 50 operators",
            ),
            (
                of("'a'", 11).join(" + "),
                of("'a'", 12).join(" + "),
                "more than 10 additions",
            ),
            (
                format!("[{}]", of("userId", 10).join(",")),
                format!("[{}]", of("userId", 11).join(",")),
                "more than 10 additions",
            ),
            (
                format!("userId == '{}'", "!".repeat(246)),
                format!("userId == '{}'", "!".repeat(247)),
                "more than 250 brackets",
            ),
        ] {
            assert!(Expression::parse(&fits).is_ok(), "{}", refusal(&fits));
            let found = refusal(&exceeds);
            assert!(found.contains(reason), "{exceeds}: {found}");
        }
    }
}
