/* Selectors, see selector.h.
 *
 *   condition  = conjunct { OR conjunct }            conjunct = negation { AND negation }
 *   negation   = { NOT } test                        sum      = product { (+|-) product }
 *   test       = sum [ = <> < <= > >= sum | [NOT] BETWEEN sum AND sum | [NOT] IN (…) | [NOT] LIKE … | IS [NOT] NULL ]
 *   product    = sign { (*|/) sign }                 sign     = { + | - } atom
 *   atom       = literal | name | ( condition )
 *
 * Read by descent into an array of nodes, each behind its parts, so that evaluation needs no memory: it descends again, as deep
 * as the text was nested. Steps are counted, LIKE's too, since whoever writes a selector does not pay for it. Pure functions. */
#include "fmt/selector.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum selector_op {
    OP_LITERAL,
    OP_NAME,
    OP_OR,
    OP_AND,
    OP_NOT,
    OP_EQUAL,
    OP_LESS,
    OP_LESS_EQUAL,
    OP_MORE,
    OP_MORE_EQUAL,
    OP_ADD,
    OP_SUBTRACT,
    OP_MULTIPLY,
    OP_DIVIDE,
    OP_MINUS,
    OP_BETWEEN,
    OP_IN,
    OP_LIKE, /* right: the pattern, third: the escape or UINT16_MAX */
    OP_IS_NULL,
};

#define NONE UINT16_MAX
#define TEXT_BYTES 128u /* that are compared at once: a step */

/* ---- words ---- */

enum token { TOKEN_END, TOKEN_NAME, TOKEN_TEXT, TOKEN_NUMBER, TOKEN_SIGN, TOKEN_BAD };

struct parser {
    struct slice text;
    size_t at, token_at;
    enum token token;
    struct slice word; /* of a name, a text without its quotes, a number, an operator */
    bool quoted;       /* a name in quotes is no keyword */
    struct selector_value number;
    struct selector_node *nodes;
    unsigned count, max, depth;
    char *why;
    size_t why_len;
    bool failed;
};

static bool fail(struct parser *p, const char *what)
{
    if (!p->failed)
        snprintf(p->why, p->why_len, "%s at %zu", what, p->token_at + 1);
    p->failed = true;
    return false;
}

static bool is_name_start(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c >= 0x80;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static uint8_t peek(const struct parser *p, size_t ahead)
{
    return p->at + ahead < p->text.len ? p->text.ptr[p->at + ahead] : 0;
}

static void take_word(struct parser *p, enum token token, size_t from)
{
    p->token = token;
    p->word = slice_of(p->text.ptr + from, p->at - from);
}

/* A quote in a text is written twice; then the text keeps both, and who compares knows (text_at). */
static void take_quoted(struct parser *p, uint8_t quote, enum token token)
{
    size_t from = ++p->at;
    while (p->at < p->text.len && (p->text.ptr[p->at] != quote || (token == TOKEN_TEXT && peek(p, 1) == quote)))
        p->at += p->text.ptr[p->at] == quote ? 2 : 1;
    if (p->at >= p->text.len) {
        p->token = TOKEN_BAD;
        return;
    }
    take_word(p, token, from);
    p->at++;
    p->quoted = true;
}

static bool number_of(struct slice word, struct selector_value *ret)
{
    char text[64], *end;
    if (word.len >= sizeof text)
        return false;
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    bool hex = word.len > 2 && text[0] == '0' && (text[1] | 32) == 'x', real = !hex && strpbrk(text, ".eEdDfF");
    errno = 0;
    if (real) {
        if (word.len > 1 && strchr("dDfF", text[word.len - 1]))
            text[word.len - 1] = '\0';
        *ret = (struct selector_value){.kind = SELECT_DOUBLE, .d = strtod(text, &end)};
    } else {
        if (word.len > 1 && !hex && (text[word.len - 1] | 32) == 'l')
            text[word.len - 1] = '\0';
        *ret = (struct selector_value){.kind = SELECT_LONG, .i = strtoll(text, &end, hex ? 16 : 10)};
    }
    return *end == '\0' && errno == 0;
}

static void take_number(struct parser *p)
{
    size_t from = p->at;
    while (is_digit(peek(p, 0)) || is_name_start(peek(p, 0)) || peek(p, 0) == '.' ||
           ((peek(p, 0) == '-' || peek(p, 0) == '+') && (p->text.ptr[p->at - 1] | 32) == 'e' && p->at > from &&
            (p->text.ptr[from + (p->at - from > 1)] | 32) != 'x'))
        p->at++;
    take_word(p, TOKEN_NUMBER, from);
    if (!number_of(p->word, &p->number))
        p->token = TOKEN_BAD;
}

static void next(struct parser *p)
{
    static const char *const signs[] = {"<>", "<=", ">=", "!=", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/"};
    while (p->at < p->text.len && (peek(p, 0) == ' ' || (peek(p, 0) >= '\t' && peek(p, 0) <= '\r')))
        p->at++;
    p->token_at = p->at;
    p->quoted = false;
    size_t from = p->at;
    uint8_t c = peek(p, 0);
    if (p->at >= p->text.len)
        p->token = TOKEN_END;
    else if (c == '\'')
        take_quoted(p, '\'', TOKEN_TEXT);
    else if (c == '"')
        take_quoted(p, '"', TOKEN_NAME);
    else if (is_digit(c) || (c == '.' && is_digit(peek(p, 1))))
        take_number(p);
    else if (is_name_start(c)) {
        while (is_name_start(peek(p, 0)) || is_digit(peek(p, 0)) || peek(p, 0) == '.')
            p->at++;
        take_word(p, TOKEN_NAME, from);
    } else {
        p->token = TOKEN_BAD;
        for (size_t i = 0; i < ARRAY_LEN(signs) && p->token == TOKEN_BAD; i++)
            if (slice_starts(slice_of(p->text.ptr + p->at, p->text.len - p->at), signs[i])) {
                p->at += strlen(signs[i]);
                take_word(p, TOKEN_SIGN, from);
            }
    }
    if (p->token == TOKEN_BAD)
        fail(p, "what is not understood");
}

static bool is_word(const struct parser *p, const char *word)
{
    size_t len = strlen(word);
    return p->token == TOKEN_NAME && !p->quoted && p->word.len == len &&
           strncasecmp((const char *)p->word.ptr, word, len) == 0;
}

static bool took_word(struct parser *p, const char *word)
{
    if (!is_word(p, word))
        return false;
    next(p);
    return true;
}

static bool took_sign(struct parser *p, const char *sign)
{
    if (p->token != TOKEN_SIGN || !slice_is(p->word, sign))
        return false;
    next(p);
    return true;
}

/* ---- reading ---- */

static uint16_t add(struct parser *p, struct selector_node node)
{
    if (p->count == p->max) {
        fail(p, "too long a condition");
        return 0;
    }
    p->nodes[p->count] = node;
    return (uint16_t)p->count++;
}

static uint16_t add_two(struct parser *p, enum selector_op op, bool negated, uint16_t left, uint16_t right)
{
    return add(
        p, (struct selector_node){.op = (uint8_t)op, .negated = negated, .left = left, .right = right, .third = NONE});
}

static uint16_t add_value(struct parser *p, struct selector_value value)
{
    return add(p, (struct selector_node){.op = OP_LITERAL, .value = value});
}

static uint16_t condition(struct parser *p);

static const char *const keywords[] = {"AND", "OR", "NOT", "BETWEEN", "IN", "LIKE", "IS", "NULL", "ESCAPE"};

static uint16_t atom(struct parser *p)
{
    struct slice word = p->word;
    if (took_sign(p, "(")) {
        uint16_t inner = condition(p);
        if (!p->failed && !took_sign(p, ")"))
            fail(p, "a bracket is not closed");
        return inner;
    }
    if (p->token == TOKEN_TEXT) {
        next(p);
        return add_value(p, (struct selector_value){.kind = SELECT_TEXT, .s = word});
    }
    if (p->token == TOKEN_NUMBER) {
        struct selector_value number = p->number;
        next(p);
        return add_value(p, number);
    }
    if (is_word(p, "TRUE") || is_word(p, "FALSE")) {
        bool yes = is_word(p, "TRUE");
        next(p);
        return add_value(p, (struct selector_value){.kind = SELECT_BOOL, .b = yes});
    }
    for (size_t i = 0; i < ARRAY_LEN(keywords); i++)
        if (is_word(p, keywords[i]))
            p->token = TOKEN_BAD;
    if (p->token != TOKEN_NAME) {
        fail(p, "a value is missing");
        return 0;
    }
    next(p);
    return add(p, (struct selector_node){.op = OP_NAME, .value = {.kind = SELECT_TEXT, .s = word}});
}

static uint16_t sign(struct parser *p)
{
    bool minus = false;
    for (;;) {
        if (took_sign(p, "-"))
            minus = !minus;
        else if (!took_sign(p, "+"))
            break;
    }
    uint16_t inner = atom(p);
    return minus ? add_two(p, OP_MINUS, false, inner, NONE) : inner;
}

static uint16_t product(struct parser *p)
{
    uint16_t left = sign(p);
    while (!p->failed) {
        if (took_sign(p, "*"))
            left = add_two(p, OP_MULTIPLY, false, left, sign(p));
        else if (took_sign(p, "/"))
            left = add_two(p, OP_DIVIDE, false, left, sign(p));
        else
            break;
    }
    return left;
}

static uint16_t sum(struct parser *p)
{
    uint16_t left = product(p);
    while (!p->failed) {
        if (took_sign(p, "+"))
            left = add_two(p, OP_ADD, false, left, product(p));
        else if (took_sign(p, "-"))
            left = add_two(p, OP_SUBTRACT, false, left, product(p));
        else
            break;
    }
    return left;
}

static uint16_t text_literal(struct parser *p, const char *what)
{
    struct slice word = p->word;
    if (p->token != TOKEN_TEXT) {
        fail(p, what);
        return 0;
    }
    next(p);
    return add_value(p, (struct selector_value){.kind = SELECT_TEXT, .s = word});
}

static uint16_t between(struct parser *p, uint16_t left, bool negated)
{
    uint16_t low = sum(p);
    if (!p->failed && !took_word(p, "AND"))
        fail(p, "BETWEEN wants AND");
    uint16_t high = sum(p);
    return add(p,
               (struct selector_node){.op = OP_BETWEEN, .negated = negated, .left = left, .right = low, .third = high});
}

static uint16_t in_list(struct parser *p, uint16_t left, bool negated)
{
    if (!took_sign(p, "("))
        fail(p, "IN wants a list in brackets");
    uint16_t first = NONE, count = 0;
    do {
        uint16_t one = text_literal(p, "IN wants texts");
        first = count++ ? first : one;
    } while (!p->failed && took_sign(p, ","));
    if (!p->failed && !took_sign(p, ")"))
        fail(p, "a bracket is not closed");
    return add(p,
               (struct selector_node){.op = OP_IN, .negated = negated, .left = left, .right = first, .third = count});
}

static uint16_t like(struct parser *p, uint16_t left, bool negated)
{
    uint16_t pattern = text_literal(p, "LIKE wants a text"), escape = NONE;
    if (!p->failed && took_word(p, "ESCAPE")) {
        if (p->word.len != 1)
            fail(p, "ESCAPE wants one character");
        escape = text_literal(p, "ESCAPE wants one character");
    }
    return add(
        p, (struct selector_node){.op = OP_LIKE, .negated = negated, .left = left, .right = pattern, .third = escape});
}

static const struct {
    const char *sign;
    enum selector_op op;
    bool negated;
} comparisons[] = {{"=", OP_EQUAL, false},       {"<>", OP_EQUAL, true}, {"!=", OP_EQUAL, true},
                   {"<=", OP_LESS_EQUAL, false}, {"<", OP_LESS, false},  {">=", OP_MORE_EQUAL, false},
                   {">", OP_MORE, false}};

static uint16_t test(struct parser *p)
{
    uint16_t left = sum(p);
    for (size_t i = 0; i < ARRAY_LEN(comparisons) && !p->failed; i++)
        if (took_sign(p, comparisons[i].sign))
            return add_two(p, comparisons[i].op, comparisons[i].negated, left, sum(p));
    if (p->failed)
        return 0;
    if (took_word(p, "IS")) {
        bool negated = took_word(p, "NOT");
        if (!took_word(p, "NULL"))
            fail(p, "IS wants NULL");
        return add_two(p, OP_IS_NULL, negated, left, NONE);
    }
    bool negated = took_word(p, "NOT");
    if (took_word(p, "BETWEEN"))
        return between(p, left, negated);
    if (took_word(p, "IN"))
        return in_list(p, left, negated);
    if (took_word(p, "LIKE"))
        return like(p, left, negated);
    if (negated)
        fail(p, "NOT wants BETWEEN, IN or LIKE here");
    return left;
}

static uint16_t negation(struct parser *p)
{
    bool negated = false;
    while (took_word(p, "NOT"))
        negated = !negated;
    uint16_t inner = test(p);
    return negated ? add_two(p, OP_NOT, false, inner, NONE) : inner;
}

static uint16_t conjunct(struct parser *p)
{
    uint16_t left = negation(p);
    while (!p->failed && took_word(p, "AND"))
        left = add_two(p, OP_AND, false, left, negation(p));
    return left;
}

static uint16_t condition(struct parser *p)
{
    if (++p->depth > SELECTOR_DEPTH_MAX) {
        fail(p, "too deep a condition");
        return 0;
    }
    uint16_t left = conjunct(p);
    while (!p->failed && took_word(p, "OR"))
        left = add_two(p, OP_OR, false, left, conjunct(p));
    p->depth--;
    return left;
}

int selector_parse(struct slice text, struct selector_node *ret, unsigned max, char *why, size_t why_len)
{
    static const char convert[] = "convert_string_expressions:";
    if (slice_starts(text, convert))
        text = slice_of(text.ptr + sizeof convert - 1, text.len - (sizeof convert - 1));
    struct parser p = {.text = text, .nodes = ret, .max = max < NONE ? max : NONE - 1, .why = why, .why_len = why_len};
    if (text.len > SELECTOR_TEXT_MAX) {
        fail(&p, "too long a condition");
        return -1;
    }
    next(&p);
    uint16_t root = condition(&p);
    if (!p.failed && p.token != TOKEN_END)
        fail(&p, "something is left over");
    if (!p.failed && root + 1u != p.count) /* an atom in brackets is the last anyway; nothing else is left behind */
        fail(&p, "something is left over");
    return p.failed ? -1 : (int)p.count;
}

/* ---- evaluating ---- */

enum truth { FALSE_, TRUE_, UNKNOWN };

struct evaluation {
    const struct selector_node *nodes;
    selector_lookup *lookup;
    const void *message;
    unsigned steps, name_steps;
};

static struct selector_value evaluate(struct evaluation *e, uint16_t at);

static void spend(struct evaluation *e, size_t steps)
{
    e->steps -= steps < e->steps ? (unsigned)steps : e->steps;
}

static struct selector_value of_truth(enum truth truth)
{
    return truth == UNKNOWN ? (struct selector_value){.kind = SELECT_NULL}
                            : (struct selector_value){.kind = SELECT_BOOL, .b = truth == TRUE_};
}

/* A value as a condition; text that says so is one too. */
static enum truth truth_of(struct selector_value v)
{
    if (v.kind == SELECT_BOOL)
        return v.b ? TRUE_ : FALSE_;
    if (v.kind == SELECT_TEXT && v.s.len == 4 && strncasecmp((const char *)v.s.ptr, "true", 4) == 0)
        return TRUE_;
    if (v.kind == SELECT_TEXT && v.s.len == 5 && strncasecmp((const char *)v.s.ptr, "false", 5) == 0)
        return FALSE_;
    return UNKNOWN;
}

static enum truth not(enum truth truth) { return truth == UNKNOWN ? UNKNOWN : truth == TRUE_ ? FALSE_ : TRUE_; }

/* A number, or what looks like one. */
static bool to_number(struct selector_value *v)
{
    if (v->kind == SELECT_LONG || v->kind == SELECT_DOUBLE)
        return true;
    struct slice s = v->kind == SELECT_TEXT ? v->s : (struct slice){0};
    bool minus = s.len > 1 && *s.ptr == '-';
    if (s.len == 0 || !is_digit(s.ptr[minus]) || !number_of(slice_of(s.ptr + minus, s.len - minus), v))
        return false;
    if (minus && v->kind == SELECT_LONG)
        v->i = -v->i;
    else if (minus)
        v->d = -v->d;
    return true;
}

static double as_double(struct selector_value v)
{
    return v.kind == SELECT_LONG ? (double)v.i : v.d;
}

/* The octet of a literal; a quote that was doubled counts once. */
static bool text_at(struct slice s, size_t *at, uint8_t *ret)
{
    if (*at >= s.len)
        return false;
    *ret = s.ptr[(*at)++];
    if (*ret == '\'' && *at < s.len && s.ptr[*at] == '\'')
        ++*at;
    return true;
}

/* literal: one of them stands in the selector, and has its quotes doubled. */
static bool texts_equal(struct evaluation *e, struct slice a, bool a_literal, struct slice b, bool b_literal)
{
    size_t i = 0, j = 0;
    uint8_t x, y;
    if (!a_literal && !b_literal) {
        spend(e, a.len == b.len ? a.len / TEXT_BYTES : 0);
        return slice_equal(a, b);
    }
    for (;;) {
        bool more_a = a_literal ? text_at(a, &i, &x) : i < a.len && (x = a.ptr[i++], true);
        bool more_b = b_literal ? text_at(b, &j, &y) : j < b.len && (y = b.ptr[j++], true);
        if (!more_a || !more_b)
            return more_a == more_b;
        if (x != y)
            return false;
        if (e->steps && i % 16 == 0)
            e->steps--;
    }
}

static bool is_literal(const struct evaluation *e, uint16_t at)
{
    return e->nodes[at].op == OP_LITERAL;
}

/* -1, 0, 1; 2: not to be compared. */
static int compare(struct evaluation *e, uint16_t left, uint16_t right)
{
    struct selector_value a = evaluate(e, left), b = evaluate(e, right);
    if (a.kind == SELECT_NULL || b.kind == SELECT_NULL)
        return 2;
    if (a.kind == SELECT_TEXT && b.kind == SELECT_TEXT)
        return texts_equal(e, a.s, is_literal(e, left), b.s, is_literal(e, right)) ? 0 : 3;
    if (a.kind == SELECT_BOOL || b.kind == SELECT_BOOL) {
        enum truth x = truth_of(a), y = truth_of(b);
        return x == UNKNOWN || y == UNKNOWN ? 2 : x == y ? 0 : 3;
    }
    if (!to_number(&a) || !to_number(&b))
        return 2;
    if (a.kind == SELECT_LONG && b.kind == SELECT_LONG)
        return a.i < b.i ? -1 : a.i > b.i;
    double x = as_double(a), y = as_double(b);
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

/* 3 is "different, and of no order": text and booleans know = and <> only. */
static enum truth by_order(int order, enum selector_op op)
{
    if (order == 2 || (order == 3 && op != OP_EQUAL))
        return order == 3 ? FALSE_ : UNKNOWN;
    switch (op) {
    case OP_EQUAL: return order == 0 ? TRUE_ : FALSE_;
    case OP_LESS: return order < 0 ? TRUE_ : FALSE_;
    case OP_LESS_EQUAL: return order <= 0 ? TRUE_ : FALSE_;
    case OP_MORE: return order > 0 ? TRUE_ : FALSE_;
    default: return order >= 0 ? TRUE_ : FALSE_;
    }
}

static enum truth both(enum truth a, enum truth b)
{
    return a == FALSE_ || b == FALSE_ ? FALSE_ : a == TRUE_ && b == TRUE_ ? TRUE_ : UNKNOWN;
}

static enum truth between_truth(struct evaluation *e, const struct selector_node *n)
{
    return both(by_order(compare(e, n->left, n->right), OP_MORE_EQUAL),
                by_order(compare(e, n->left, n->third), OP_LESS_EQUAL));
}

static enum truth in_truth(struct evaluation *e, const struct selector_node *n)
{
    struct selector_value v = evaluate(e, n->left);
    if (v.kind != SELECT_TEXT)
        return UNKNOWN;
    for (uint16_t i = 0; i < n->third && e->steps; i++, spend(e, 1))
        if (texts_equal(e, v.s, is_literal(e, n->left), e->nodes[n->right + i].value.s, true))
            return TRUE_;
    return e->steps ? FALSE_ : UNKNOWN;
}

/* One element of a pattern: an octet, or what stands for any. False: the end. */
static bool pattern_at(struct slice pattern, size_t *at, int escape, uint8_t *ret, bool *ret_special)
{
    if (!text_at(pattern, at, ret))
        return false;
    *ret_special = *ret == '%' || *ret == '_';
    if (*ret == escape && text_at(pattern, at, ret))
        *ret_special = false;
    return true;
}

/* The usual walk with one place to come back to: behind the last %, one octet further each time. */
static enum truth like_truth(struct evaluation *e, const struct selector_node *n)
{
    struct selector_value v = evaluate(e, n->left);
    if (v.kind != SELECT_TEXT)
        return UNKNOWN;
    struct slice s = v.s, pattern = e->nodes[n->right].value.s;
    int escape = n->third == NONE ? -1 : e->nodes[n->third].value.s.ptr[0];
    size_t i = 0, at = 0, back = SIZE_MAX, back_i = 0;
    while (e->steps) {
        e->steps--;
        uint8_t c = 0;
        bool special = false;
        bool more = pattern_at(pattern, &at, escape, &c, &special);
        if (more && special && c == '%') {
            back = at;
            back_i = i;
            continue;
        }
        if (!more && i == s.len)
            return TRUE_;
        if (more && i < s.len && (special || c == s.ptr[i])) {
            i++;
            continue;
        }
        if (back == SIZE_MAX || back_i >= s.len)
            return FALSE_;
        at = back;
        i = ++back_i;
    }
    return UNKNOWN;
}

static struct selector_value reckon(enum selector_op op, struct selector_value a, struct selector_value b)
{
    struct selector_value none = {.kind = SELECT_NULL}, r = {.kind = SELECT_LONG};
    if (!to_number(&a) || !to_number(&b))
        return none;
    if (a.kind == SELECT_LONG && b.kind == SELECT_LONG) {
        bool over = op == OP_ADD        ? __builtin_add_overflow(a.i, b.i, &r.i)
                    : op == OP_SUBTRACT ? __builtin_sub_overflow(a.i, b.i, &r.i)
                    : op == OP_MULTIPLY ? __builtin_mul_overflow(a.i, b.i, &r.i)
                                        : b.i == 0 || (b.i == -1 && a.i == INT64_MIN);
        if (op == OP_DIVIDE && !over)
            r.i = a.i / b.i;
        return over ? none : r;
    }
    double x = as_double(a), y = as_double(b);
    r = (struct selector_value){.kind = SELECT_DOUBLE};
    r.d = op == OP_ADD ? x + y : op == OP_SUBTRACT ? x - y : op == OP_MULTIPLY ? x * y : x / y;
    return isfinite(r.d) ? r : none;
}

static enum truth truth_at(struct evaluation *e, const struct selector_node *n)
{
    enum truth truth;
    switch ((enum selector_op)n->op) {
    case OP_AND:
        truth = truth_of(evaluate(e, n->left));
        return truth == FALSE_ ? FALSE_ : both(truth, truth_of(evaluate(e, n->right)));
    case OP_OR:
        truth = truth_of(evaluate(e, n->left));
        return truth == TRUE_ ? TRUE_ : not(both(not(truth), not(truth_of(evaluate(e, n->right)))));
    case OP_NOT: return not(truth_of(evaluate(e, n->left)));
    case OP_BETWEEN: return between_truth(e, n);
    case OP_IN: return in_truth(e, n);
    case OP_LIKE: return like_truth(e, n);
    case OP_IS_NULL: return evaluate(e, n->left).kind == SELECT_NULL ? TRUE_ : FALSE_;
    default: return by_order(compare(e, n->left, n->right), (enum selector_op)n->op);
    }
}

static struct selector_value evaluate(struct evaluation *e, uint16_t at)
{
    const struct selector_node *n = &e->nodes[at];
    if (e->steps == 0)
        return (struct selector_value){.kind = SELECT_NULL};
    e->steps--;
    switch ((enum selector_op)n->op) {
    case OP_LITERAL: return n->value;
    case OP_NAME: spend(e, e->name_steps); return e->lookup(e->message, n->value.s);
    case OP_ADD:
    case OP_SUBTRACT:
    case OP_MULTIPLY:
    case OP_DIVIDE: return reckon((enum selector_op)n->op, evaluate(e, n->left), evaluate(e, n->right));
    case OP_MINUS: return reckon(OP_SUBTRACT, (struct selector_value){.kind = SELECT_LONG}, evaluate(e, n->left));
    default: break;
    }
    enum truth truth = truth_at(e, n);
    return of_truth(n->negated ? not(truth) : truth);
}

bool selector_matches(const struct selector_node *nodes, unsigned count, selector_lookup *lookup, const void *message,
                      unsigned name_steps, unsigned *ret_steps)
{
    struct evaluation e = {
        .nodes = nodes, .lookup = lookup, .message = message, .steps = SELECTOR_STEPS_MAX, .name_steps = name_steps};
    enum truth truth = truth_of(evaluate(&e, (uint16_t)(count - 1)));
    *ret_steps = SELECTOR_STEPS_MAX - e.steps;
    return truth == TRUE_ && e.steps; /* what was given up on is not true, negated or not */
}
