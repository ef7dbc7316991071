/* The generator, see nexmark.h. Every random number of an event comes from a state that is seeded with the event's own.
 *
 * Ids: persons and auctions are numbered from 1000 in the order of their events. A bid's auction and bidder are chosen among
 * the newest, with a lead of ten: a few name somebody who is yet to come, as in the reference. */
#include "sql/query/nexmark.h"

#include <math.h>
#include <stdio.h>

#define ROUND 50u /* events after which kinds repeat: 1 person, 3 auctions, then bids */
#define PERSONS 1u
#define AUCTIONS 3u
#define FIRST_ID 1000u
#define FIRST_CATEGORY 10u
#define CATEGORIES 5u
#define LEAD 10u
#define IN_FLIGHT 100u
#define ACTIVE 1000u
#define HOT 100u
#define HORIZON_EVENTS 1666u /* how long auctions last at most, less one */
#define CHANNELS 10000u

struct dice {
    uint64_t state;
};

/* splitmix64 */
static uint64_t roll(struct dice *dice)
{
    uint64_t z = (dice->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 … n - 1 */
static uint64_t below(struct dice *dice, uint64_t n)
{
    return roll(dice) % n;
}

struct nexmark nexmark_default(void)
{
    return (struct nexmark){.seed = 1, .rate = 10000, .base_ms = NEXMARK_BASE_MS, .group = 1};
}

uint64_t nexmark_number(const struct nexmark *nexmark, uint64_t place)
{
    uint64_t n = nexmark->group > 1 ? nexmark->group : 1;
    return place / n * n + place * 953 % n;
}

enum nexmark_kind nexmark_kind_of(uint64_t number)
{
    uint64_t at = number % ROUND;
    return at < PERSONS ? NEXMARK_PERSON : at < PERSONS + AUCTIONS ? NEXMARK_AUCTION : NEXMARK_BID;
}

wall_t nexmark_time(const struct nexmark *nexmark, uint64_t number)
{
    uint64_t rate = nexmark->rate ? nexmark->rate : 1;
    return nexmark->base_ms + (wall_t)(number / rate * 1000 + number % rate * 1000 / rate);
}

/* Of the newest person that event `number` can know; from 0. */
static uint64_t last_person(uint64_t number)
{
    return number / ROUND;
}

/* The same of auctions; none before the first: then 0. */
static uint64_t last_auction(uint64_t number)
{
    uint64_t at = number % ROUND, before = number / ROUND * AUCTIONS;
    if (at < PERSONS)
        return before ? before - 1 : 0;
    return before + (at < PERSONS + AUCTIONS ? at - PERSONS : AUCTIONS - 1);
}

static uint64_t some_person(struct dice *dice, uint64_t number)
{
    uint64_t people = last_person(number) + 1, active = people < ACTIVE ? people : ACTIVE;
    return FIRST_ID + people - active + below(dice, active + LEAD);
}

static uint64_t some_auction(struct dice *dice, uint64_t number)
{
    uint64_t last = last_auction(number), least = last > IN_FLIGHT ? last - IN_FLIGHT : 0;
    return FIRST_ID + least + below(dice, last - least + 1 + LEAD);
}

static uint64_t price(struct dice *dice)
{
    double unit = (double)(roll(dice) >> 11) / 9007199254740992.0; /* 2^53 */
    return (uint64_t)llround(pow(10.0, unit * 6.0) * 100.0);
}

static void put_text(struct writer *out, const char *text)
{
    writer_put(out, text, strlen(text));
}

static void put_number(struct writer *out, uint64_t number)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    writer_put(out, digits, (size_t)len);
}

/* `"name":` */
static void put_name(struct writer *out, const char *name)
{
    put_text(out, "\"");
    put_text(out, name);
    put_text(out, "\":");
}

static void put_number_field(struct writer *out, const char *name, uint64_t number)
{
    put_name(out, name);
    put_number(out, number);
    put_text(out, ",");
}

static void put_text_field(struct writer *out, const char *name, const char *text)
{
    put_name(out, name);
    put_text(out, "\"");
    put_text(out, text);
    put_text(out, "\",");
}

/* Lower-case letters, one in thirteen is `blank`; text has room for len + 1. */
static void letters(struct dice *dice, char *text, size_t len, char blank)
{
    for (size_t i = 0; i < len; i++)
        text[i] = below(dice, 13) == 0 ? blank : (char)('a' + below(dice, 26));
    text[len] = 0;
}

/* 3 … max - 1 of them. */
static void some_letters(struct dice *dice, char *text, size_t max, char blank)
{
    letters(dice, text, 3 + below(dice, max - 3), blank);
}

/* The last field: fills the event up to the size that its kind has on average, one fifth more or less. `size` is what the
 * reference counts for the other fields. */
static void put_extra(struct dice *dice, struct writer *out, size_t size, size_t average)
{
    char text[640] = "";
    if (size < average) {
        size_t rest = average - size, spread = (rest + 2) / 5;
        letters(dice, text, rest - spread + (spread ? below(dice, 2 * spread) : 0), ' ');
    }
    put_name(out, "extra");
    put_text(out, "\"");
    put_text(out, text);
    put_text(out, "\"}");
}

/* Days since 1970 to a civil date (Howard Hinnant's algorithm, for days from 0 on). */
static void put_time(struct writer *out, const char *name, wall_t ms)
{
    uint64_t days = (uint64_t)ms / 86400000 + 719468, rest = (uint64_t)ms % 86400000;
    uint64_t era = days / 146097, doe = days % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    uint64_t mp = (5 * doy + 2) / 153, month = mp < 10 ? mp + 3 : mp - 9;
    char text[64];
    snprintf(text, sizeof text, "%04u-%02u-%02u %02u:%02u:%02u.%03u", (unsigned)(yoe + era * 400 + (month <= 2)),
             (unsigned)month, (unsigned)(doy - (153 * mp + 2) / 5 + 1), (unsigned)(rest / 3600000),
             (unsigned)(rest / 60000 % 60), (unsigned)(rest / 1000 % 60), (unsigned)(rest % 1000));
    put_text_field(out, name, text);
}

static void put_person(const struct nexmark *nexmark, uint64_t number, struct dice *dice, struct writer *out)
{
    static const char *const first[] = {"Peter", "Paul",  "Luke",  "John",   "Saul",  "Vicky",
                                        "Kate",  "Julie", "Sarah", "Deiter", "Walter"};
    static const char *const last[] = {"Shultz", "Abrams", "Spencer", "White", "Bartels",
                                       "Walton", "Smith",  "Jones",   "Noris"};
    static const char *const cities[] = {"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland",
                                         "Bend",    "Redmond",     "Seattle",       "Kent",  "Cheyenne"};
    static const char *const states[] = {"AZ", "CA", "ID", "OR", "WA", "WY"};
    char name[32], user[16], host[16], email[48], card[32];
    snprintf(name, sizeof name, "%s %s", first[below(dice, ARRAY_LEN(first))], last[below(dice, ARRAY_LEN(last))]);
    some_letters(dice, user, 7, '_');
    some_letters(dice, host, 5, '_');
    snprintf(email, sizeof email, "%s@%s.com", user, host);
    snprintf(card, sizeof card, "%04u %04u %04u %04u", (unsigned)below(dice, 10000), (unsigned)below(dice, 10000),
             (unsigned)below(dice, 10000), (unsigned)below(dice, 10000));
    const char *city = cities[below(dice, ARRAY_LEN(cities))], *state = states[below(dice, ARRAY_LEN(states))];
    put_text(out, "{");
    put_number_field(out, "id", FIRST_ID + last_person(number));
    put_text_field(out, "name", name);
    put_text_field(out, "emailAddress", email);
    put_text_field(out, "creditCard", card);
    put_text_field(out, "city", city);
    put_text_field(out, "state", state);
    put_time(out, "dateTime", nexmark_time(nexmark, number));
    put_extra(dice, out, 8 + strlen(name) + strlen(email) + strlen(card) + strlen(city) + strlen(state), 200);
}

static void put_auction(const struct nexmark *nexmark, uint64_t number, struct dice *dice, struct writer *out)
{
    char item[24], description[104];
    wall_t now = nexmark_time(nexmark, number), horizon = nexmark_time(nexmark, number + HORIZON_EVENTS) - now;
    uint64_t initial, last = last_person(number);
    uint64_t seller = below(dice, 4) > 0 ? FIRST_ID + last / HOT * HOT : some_person(dice, number);
    some_letters(dice, item, 20, ' ');
    some_letters(dice, description, 100, ' ');
    initial = price(dice);
    put_text(out, "{");
    put_number_field(out, "id", FIRST_ID + last_auction(number));
    put_text_field(out, "itemName", item);
    put_text_field(out, "description", description);
    put_number_field(out, "initialBid", initial);
    put_number_field(out, "reserve", initial + price(dice));
    put_time(out, "dateTime", now);
    put_time(out, "expires", now + 1 + (wall_t)below(dice, horizon > 0 ? 2 * (uint64_t)horizon : 1));
    put_number_field(out, "seller", seller);
    put_number_field(out, "category", FIRST_CATEGORY + below(dice, CATEGORIES));
    put_extra(dice, out, 8 + strlen(item) + strlen(description) + 40, 500);
}

/* An address of three folders. */
static void address(struct dice *dice, char *text, size_t room)
{
    char parts[3][8];
    for (int i = 0; i < 3; i++)
        some_letters(dice, parts[i], 5, '_');
    snprintf(text, room, "https://www.nexmark.com/%s/%s/%s/item.htm?query=1", parts[0], parts[1], parts[2]);
}

/* A channel's address is always the same: its letters come from its number. */
static void put_channel(const struct nexmark *nexmark, struct dice *dice, struct writer *out)
{
    static const char *const hot[] = {"Google", "Facebook", "Baidu", "Apple"};
    bool is_hot = below(dice, 2) == 0;
    uint64_t number = is_hot ? below(dice, ARRAY_LEN(hot)) : below(dice, CHANNELS);
    struct dice own = {.state = nexmark->seed ^ (is_hot ? UINT64_MAX - number : number * 0x2545f4914f6cdd1du)};
    char name[24], url[128];
    size_t len;
    snprintf(name, sizeof name, "channel-%u", (unsigned)number);
    put_text_field(out, "channel", is_hot ? hot[number] : name);
    address(&own, url, sizeof url);
    len = strlen(url);
    if (!is_hot && below(&own, 10) > 0) { /* the reference reverses the bits of the number */
        uint32_t bits = 0;
        for (int i = 0; i < 32; i++)
            bits |= (uint32_t)(number >> i & 1) << (31 - i);
        snprintf(url + len, sizeof url - len, "&channel_id=%u", bits > INT32_MAX ? 0u - bits : bits);
    }
    put_text_field(out, "url", url);
}

static void put_bid(const struct nexmark *nexmark, uint64_t number, struct dice *dice, struct writer *out)
{
    bool hot_auction = below(dice, 2) > 0, hot_bidder = below(dice, 4) > 0;
    put_text(out, "{");
    put_number_field(out, "auction",
                     hot_auction ? FIRST_ID + last_auction(number) / HOT * HOT : some_auction(dice, number));
    put_number_field(out, "bidder",
                     hot_bidder ? FIRST_ID + last_person(number) / HOT * HOT + 1 : some_person(dice, number));
    put_number_field(out, "price", price(dice));
    put_channel(nexmark, dice, out);
    put_time(out, "dateTime", nexmark_time(nexmark, number));
    put_extra(dice, out, 32, 100);
}

void nexmark_write(const struct nexmark *nexmark, uint64_t number, struct writer *out)
{
    static const char *const begin[] = {
        [NEXMARK_PERSON] = "{\"event_type\":0,\"person\":",
        [NEXMARK_AUCTION] = "{\"event_type\":1,\"person\":null,\"auction\":",
        [NEXMARK_BID] = "{\"event_type\":2,\"person\":null,\"auction\":null,\"bid\":",
    };
    static const char *const end[] = {[NEXMARK_PERSON] = ",\"auction\":null,\"bid\":null}",
                                      [NEXMARK_AUCTION] = ",\"bid\":null}",
                                      [NEXMARK_BID] = "}"};
    enum nexmark_kind kind = nexmark_kind_of(number);
    struct dice seed = {.state = nexmark->seed * 0xd1342543de82ef95u + number};
    struct dice dice = {.state = roll(&seed)}; /* else neighbours would share most of their numbers */
    put_text(out, begin[kind]);
    if (kind == NEXMARK_PERSON)
        put_person(nexmark, number, &dice, out);
    else if (kind == NEXMARK_AUCTION)
        put_auction(nexmark, number, &dice, out);
    else
        put_bid(nexmark, number, &dice, out);
    put_text(out, end[kind]);
}
