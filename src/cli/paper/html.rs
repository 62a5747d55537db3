//! One page that needs no other file.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What is between `<` and `>` in HTML, as text.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A page. Colours are the reader's: light or dark.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n{body}</body>\n</html>\n",
        escaped(title)
    )
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --pale: #5a6572; --line: #d5dae0; --ground: #ffffff; --tint: #f2f4f7; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ed; --pale: #9aa6b3; --line: #3a424c; --ground: #14181d; --tint: #1e242b; --link: #7db7f5; }
}
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
p { max-width: 46rem; margin: .5rem 0; } a { color: var(--link); }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1.5rem; }
.pale { color: var(--pale); } .badge { background: var(--tint); border: 1px solid var(--line); border-radius: .3rem; font-size: .8rem;
  padding: .05rem .4rem; white-space: nowrap; }
.table { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .45rem; text-align: right; vertical-align: bottom; }
td { white-space: nowrap; } th { font-weight: 600; min-width: 3rem; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.words { white-space: normal; min-width: 14rem; text-align: left; }
.drawings { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.drawings svg, .picture img { height: auto; max-width: 100%; display: block; }
svg .ground { fill: var(--ground); }
.picture img { background: #fff; border-radius: .3rem; }
ul { margin: .3rem 0; max-width: 46rem; padding-left: 1.2rem; } li { margin: .15rem 0; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--link); }
pre { background: var(--tint); border-radius: .3rem; font-size: .82rem; overflow-x: auto; padding: .6rem .8rem; }
";

/// A table with a heading; what is long stands as words in its cell.
pub(super) fn table(cells: &[Vec<String>]) -> String {
    let row = |row: &Vec<String>, tag: &str| {
        let cell = |(i, cell): (usize, &String)| {
            let class = if tag == "td" && i > 0 && cell.chars().count() > 32 {
                " class=\"words\""
            } else {
                ""
            };
            format!("<{tag}{class}>{}</{tag}>", escaped(cell))
        };
        format!(
            "<tr>{}</tr>\n",
            row.iter().enumerate().map(cell).collect::<String>()
        )
    };
    let Some((heading, rows)) = cells.split_first() else {
        return String::new();
    };
    let rows: String = rows.iter().map(|cells| row(cells, "td")).collect();
    format!(
        "<div class=\"table\"><table><thead>{}</thead><tbody>\n{rows}</tbody></table></div>\n",
        row(heading, "th")
    )
}

/// A drawing in the page's colours: ink for black, the ground for white.
pub(super) fn drawing(svg: &str, about: &str) -> String {
    let svg = svg
        .replace("fill=\"#FFFFFF\"", "class=\"ground\"")
        .replace("\"#FFFFFF\"", "\"none\"")
        .replace("\"#000000\"", "\"currentColor\"");
    svg.replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(about)),
        1,
    )
}

pub(super) fn picture(png: &[u8], about: &str) -> String {
    format!(
        "<figure class=\"picture\" style=\"margin: 1rem 0\"><img alt=\"{}\" src=\"data:image/png;base64,{}\"></figure>\n",
        escaped(about),
        BASE64_STANDARD.encode(png)
    )
}

/// Sentences one below the other.
pub(super) fn list(sentences: &[String]) -> String {
    if sentences.is_empty() {
        return String::new();
    }
    let items: String = sentences
        .iter()
        .map(|s| format!("<li>{}</li>\n", escaped(s)))
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let cells = vec![
            vec!["a <b>".to_string(), "\"c\" & d".into()],
            vec!["<script>".into(), "1".into()],
        ];
        let text = table(&cells);
        assert!(
            text.contains("<th>a &lt;b&gt;</th><th>&quot;c&quot; &amp; d</th>"),
            "{text}"
        );
        assert!(
            text.contains("<td>&lt;script&gt;</td>") && !text.contains("<script>"),
            "{text}"
        );
    }

    #[test]
    fn a_drawing_has_the_colours_of_the_page() {
        let svg = "<svg width=\"1\"><rect fill=\"#FFFFFF\"/><text fill=\"#000000\">1</text><path stroke=\"#0072B2\"/></svg>";
        let wanted = "<svg role=\"img\" aria-label=\"a &lt; b\" width=\"1\"><rect class=\"ground\"/><text fill=\"currentColor\">1</text>\
                      <path stroke=\"#0072B2\"/></svg>";
        assert_eq!(drawing(svg, "a < b"), wanted);
    }
}
