//! The names that an expression may use.

use cel::common::ast::{Expr, LiteralValue, operators};

pub(super) const EVENT_DATA: &str = "eventData";
pub(super) const VARIABLES: [&str; 9] = [
    "id",
    "eventType",
    EVENT_DATA,
    "userId",
    "sessionId",
    "timestamp",
    "receivedAt",
    "producer",
    "source",
];

const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];
/// Functions of one argument.
const FUNCTIONS: [&str; 8] = [
    "bool",
    "double",
    "duration",
    "int",
    "size",
    "string",
    "timestamp",
    "uint",
];
/// Methods with the number of their arguments.
const METHODS: [(&str, usize); 14] = [
    ("contains", 1),
    ("endsWith", 1),
    ("startsWith", 1),
    ("size", 0),
    ("getFullYear", 0),
    ("getMonth", 0),
    ("getDayOfYear", 0),
    ("getDayOfMonth", 0),
    ("getDate", 0),
    ("getDayOfWeek", 0),
    ("getHours", 0),
    ("getMinutes", 0),
    ("getSeconds", 0),
    ("getMilliseconds", 0),
];

/// Operators and methods that give true or false. Of functions only `bool` does.
const BOOL: [&str; 14] = [
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::IN,
    "bool",
    "contains",
    "endsWith",
    "startsWith",
];

/// Whether an expression whose names are checked can give true or false.
pub(super) fn may_be_bool(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
        Expr::Ident(_) | Expr::List(_) | Expr::Map(_) => false,
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            let mut results = call.args.iter().skip(1);
            results.any(|result| may_be_bool(&result.expr))
        }
        // An element may be of any type.
        Expr::Call(call) => {
            call.func_name == operators::INDEX || BOOL.contains(&call.func_name.as_str())
        }
        // So may a field be, and what a comprehension gives.
        _ => true,
    }
}

/// Checks a variable that is none of a comprehension's own.
pub(super) fn check_variable(name: &str) -> Result<(), String> {
    if VARIABLES.contains(&name) {
        return Ok(());
    }
    let known = VARIABLES.join(", ");
    Err(format!(
        "refers to {name}, which is not one of {known}; a field of the payload is {EVENT_DATA}.{name}"
    ))
}

/// Checks an operator, a function or a method by the number of its arguments. The arguments of a method
/// are those in the brackets.
pub(super) fn check_function(name: &str, is_method: bool, arguments: usize) -> Result<(), String> {
    let is_known = if is_method {
        METHODS.contains(&(name, arguments))
    } else {
        OPERATORS.contains(&name)
            || name == operators::NOT_STRICTLY_FALSE
            || (arguments == 1 && FUNCTIONS.contains(&name))
    };
    if is_known {
        return Ok(());
    }
    let methods = METHODS.map(|(name, _)| name).join(", ");
    Err(format!(
        "calls {name} with {arguments} arguments; there are the functions {}, with one argument, \
         the methods {methods}, and has, all, exists, exists_one, filter and map",
        FUNCTIONS.join(", ")
    ))
}
