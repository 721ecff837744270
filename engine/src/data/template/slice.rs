//! `value[start:stop:step]` as Python takes it apart. minijinja's own reads past the end of what is empty when `step` is
//! negative.

use minijinja::value::{Value, ValueKind};

use super::limit::refused;

/// The items of a text or a list from `start` to before `stop`, every `step`-th.
pub(super) fn slice(value: Value, start: Value, stop: Value, step: Value) -> Result<Value, minijinja::Error> {
    let [start, stop, step] = [start, stop, step].map(|bound| match bound.is_none() {
        true => Ok(None),
        false => i64::try_from(bound).map(Some),
    });
    let (start, stop, step) = (start?, stop?, step?.unwrap_or(1));
    if step == 0 {
        return Err(refused("cannot slice by step size of 0"));
    }
    match value.kind() {
        ValueKind::String => {
            let letters: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            Ok(Value::from(places(letters.len(), start, stop, step).map(|at| letters[at]).collect::<String>()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            Ok(Value::from(places(items.len(), start, stop, step).map(|at| items[at].clone()).collect::<Vec<_>>()))
        }
        ValueKind::Undefined | ValueKind::None => Ok(Value::from(Vec::<Value>::new())),
        kind => Err(refused(format!("value of type {kind} cannot be sliced"))),
    }
}

/// Indices below `count`, as Python's `slice(start, stop, step).indices(count)` gives them.
fn places(count: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let count = count as i64;
    // Backwards, the place before the first is a place to stop at.
    let (low, high) = if step > 0 { (0, count) } else { (-1, count - 1) };
    let bound = |given: Option<i64>, absent: i64| match given {
        None => absent,
        Some(from_end) if from_end < 0 => from_end.saturating_add(count).max(low),
        Some(at) => at.min(high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (start, stop) = (bound(start, first), bound(stop, last));
    std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(move |at| if step > 0 { *at < stop } else { *at > stop })
        .map(|at| at as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_pythons() {
        let cut = |count: usize, start, stop, step| places(count, start, stop, step).collect::<Vec<_>>();
        assert_eq!(cut(5, None, None, 1), [0, 1, 2, 3, 4]);
        assert_eq!(cut(5, Some(1), Some(-1), 2), [1, 3]);
        assert_eq!(cut(5, None, None, -1), [4, 3, 2, 1, 0]);
        assert_eq!(cut(5, Some(3), Some(0), -2), [3, 1]);
        assert_eq!(cut(5, Some(-2), None, -1), [3, 2, 1, 0]);
        assert_eq!(cut(5, Some(9), Some(-9), -1), [4, 3, 2, 1, 0]);
        assert_eq!(cut(5, Some(3), Some(1), 1), [0; 0]);
        assert_eq!(cut(0, None, None, -1), [0; 0]);
        assert_eq!(cut(3, Some(i64::MIN), Some(i64::MAX), i64::MAX), [0]);
        assert_eq!(cut(3, Some(i64::MAX), Some(i64::MIN), i64::MIN), [2]);
    }
}
