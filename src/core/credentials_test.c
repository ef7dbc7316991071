/* Keys of SCRAM: who may change them, that a user keeps what was not changed, and what is told of who is not there. */
#include "core/credentials.h"

#include "core/broker_words_test.h"
#include "fmt/password.h"

static struct slice keys_text(enum scram_hash hash, unsigned iterations, char room[SCRAM_TEXT_MAX])
{
    struct scram_keys keys = {.hash = hash, .iterations = iterations, .salt_len = 16};
    memset(keys.salt, 7, sizeof keys.salt);
    memset(keys.stored, (int)iterations, sizeof keys.stored);
    return slice_of(room, scram_keys_print(&keys, room));
}

/* One change: iterations 0 takes the keys. */
static void put_change(struct writer *w, enum scram_hash hash, unsigned iterations)
{
    char text[SCRAM_TEXT_MAX];
    writer_u8(w, (uint8_t)hash);
    writer_str32(w, iterations ? keys_text(hash, iterations, text) : (struct slice){0});
}

static int alter(struct rig *rig, const char *name, struct slice changes)
{
    struct slice none = {0};
    rig_clear(rig);
    struct ask *ask = ask_new(slice_str(name), none, none, changes);
    if (!ask)
        return SCRAM_NO_ROOM;
    rig_command(rig, 0, CMD_SCRAM_ALTER, 1, 0)->ask = ask;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
    return e && e->answer ? (int)e->answer->number : SCRAM_NO_ROOM; /* no effect: its login was refused memory */
}

static int alter_one(struct rig *rig, const char *name, enum scram_hash hash, unsigned iterations)
{
    uint8_t room[512];
    struct writer w = writer_of(room, sizeof room);
    put_change(&w, hash, iterations);
    return alter(rig, name, writer_slice(&w));
}

/* "256/512" iterations of a user's keys; "" when it is not listed. Of those named, or of all. */
static const char *listed(struct rig *rig, const char *name, bool all)
{
    static char text[64];
    uint8_t room[64];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    struct scram_row row;
    rig_clear(rig);
    writer_str32(&w, slice_str(name));
    struct ask *ask = ask_new(none, all ? none : writer_slice(&w), none, none);
    rig_command(rig, 0, CMD_SCRAM_LIST, 1, 0)->ask = ask;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
    assert_non_null(e);
    assert_non_null(e->answer);
    if (e->answer->number == SCRAM_REFUSED)
        return "refused";
    struct reader r = reader_of(e->answer->fields);
    while (scram_row_next(&r, &row))
        if (slice_is(row.user, name)) {
            snprintf(text, sizeof text, "%u/%u", row.iterations[0], row.iterations[1]);
            return text;
        }
    assert_true(reader_ok(&r));
    return "";
}

static void keys_come_and_go(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint8_t room[1024];
    struct writer w = writer_of(room, sizeof room);
    assert_string_equal(listed(rig, "anna", false), "");
    assert_int_equal(alter_one(rig, "anna", SCRAM_SHA512, 4096), SCRAM_DONE);
    assert_string_equal(listed(rig, "anna", false), "0/4096");
    assert_int_equal(alter_one(rig, "anna", SCRAM_SHA256, 8192), SCRAM_DONE);
    restart(&rig);
    assert_string_equal(listed(rig, "anna", true), "8192/4096");
    assert_string_equal(listed(rig, "guest", true), "4096/4096");
    assert_int_equal(alter_one(rig, "anna", SCRAM_SHA512, 0), SCRAM_DONE);
    assert_string_equal(listed(rig, "anna", true), "8192/0");
    put_change(&w, SCRAM_SHA256, 5000);
    put_change(&w, SCRAM_SHA512, 0); /* which are not there: nothing changes */
    assert_int_equal(alter(rig, "anna", writer_slice(&w)), SCRAM_NO_KEYS);
    assert_string_equal(listed(rig, "anna", true), "8192/0");
    assert_int_equal(alter_one(rig, "anna", SCRAM_SHA256, 0), SCRAM_DONE);
    assert_string_equal(listed(rig, "anna", true), "");
    assert_non_null(user_find(rig->b, slice_str("anna"))); /* its permissions stay */
    assert_int_equal(alter_one(rig, "nobody", SCRAM_SHA256, 0), SCRAM_NO_KEYS);
    assert_null(user_find(rig->b, slice_str("nobody")));
    assert_int_equal(alter_one(rig, "", SCRAM_SHA256, 4096), SCRAM_BAD_NAME);
    assert_int_equal(alter(rig, "anna", slice_of("\0\0\0\0\3abc", 8)), SCRAM_BAD_KEYS);
    assert_int_equal(alter(rig, "anna", slice_of("\7\0\0\0\0", 5)), SCRAM_BAD_KEYS);
    restart(&rig);
    assert_string_equal(listed(rig, "anna", true), "");
    end(rig);
}

static void administrators_only(void **state)
{
    (void)state;
    static const struct {
        const char *tags;
        bool may;
    } rows[] = {{"", false},
                {"monitoring", false},
                {"administrators", false},
                {"monitoring,administrator", true},
                {"administrator,x", true}};
    struct rig *rig = begin();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct user *guest = user_find(rig->b, slice_str("guest"));
        assert_true(user_put(rig->b, guest->name, guest->verifier, slice_str(rows[i].tags), true));
        assert_int_equal(alter_one(rig, "eve", SCRAM_SHA256, 4096), rows[i].may ? SCRAM_DONE : SCRAM_REFUSED);
        assert_string_equal(listed(rig, "guest", true), rows[i].may ? "4096/4096" : "refused");
    }
    assert_false(user_administers(NULL));
    struct user *guest = user_find(rig->b, slice_str("guest"));
    assert_true(log_object(rig->b, &guest->object) != 0);
    end(rig);
}

static struct scram_keys nobody(struct rig *rig, const char *name)
{
    struct scram_keys keys;
    nobodys_keys(rig->b, SCRAM_SHA256, slice_str(name), &keys);
    return keys;
}

/* Whoever is not there has the same salt for ever, another in another store, and no other number of iterations than users have. */
static void nobody_is_told_apart(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct scram_keys first = nobody(rig, "nobody"), again;
    assert_int_equal(first.iterations, 4096); /* as guest, who is alone */
    restart(&rig);
    again = nobody(rig, "nobody");
    assert_memory_equal(first.salt, again.salt, first.salt_len);
    compact_start(rig->b);
    while (rig->b->totals.compactions == 0)
        rig_step(rig);
    restart(&rig);
    again = nobody(rig, "nobody");
    assert_memory_equal(first.salt, again.salt, first.salt_len);
    again = nobody(rig, "nobody2");
    assert_memory_not_equal(first.salt, again.salt, first.salt_len);
    for (unsigned i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof name, "u%u", i);
        assert_int_equal(alter_one(rig, name, SCRAM_SHA256, i < 2 ? 8192 : 10000 + i), SCRAM_DONE);
    }
    assert_int_equal(nobody(rig, "nobody").iterations, 8192);
    uint64_t read = rig->b->verifiers_read;
    assert_int_equal(alter_one(rig, "u3", SCRAM_SHA256, 10004), SCRAM_DONE);
    assert_int_equal(nobody(rig, "nobody").iterations, 8192);
    assert_int_equal(rig->b->verifiers_read, read + 1); /* that one only */
    user_delete(rig->b, user_find(rig->b, slice_str("u0")));
    rig->b->users_gen--; /* a deletion counts: what is remembered would be wrong */
    assert_int_equal(nobody(rig, "nobody").iterations, 8192);
    rig->b->users_gen++;
    assert_int_equal(nobody(rig, "nobody").iterations, 4096);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static bool no_reserve(void *self, size_t bytes, unsigned count)
{
    (void)self;
    (void)bytes;
    (void)count;
    return false;
}

static void without_room_nothing_changes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig_step(rig);
    bool (*reserve)(void *, size_t, unsigned) = rig->b->options.log.reserve;
    rig->b->options.log.reserve = no_reserve;
    assert_int_equal(alter_one(rig, "anna", SCRAM_SHA256, 4096), SCRAM_NO_ROOM);
    rig->b->options.log.reserve = reserve;
    assert_null(user_find(rig->b, slice_str("anna")));
    end(rig);
}

static bool storm(struct rig *rig)
{
    if (!begin_with(rig))
        return false;
    if (alter_one(rig, "anna", SCRAM_SHA256, 4096) != SCRAM_DONE)
        return false;
    rig_clear(rig);
    struct slice none = {0};
    struct ask *ask = ask_new(none, none, none, none);
    if (!ask)
        return false;
    rig_command(rig, 0, CMD_SCRAM_LIST, 1, 0)->ask = ask;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
    return e && e->answer;
}

static void allocations_fail(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_come_and_go),     cmocka_unit_test(administrators_only),
        cmocka_unit_test(nobody_is_told_apart), cmocka_unit_test(without_room_nothing_changes),
        cmocka_unit_test(allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
