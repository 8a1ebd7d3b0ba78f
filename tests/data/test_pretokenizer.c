/* Pretokenizers: the pieces of known texts, hand-written code against PCRE2 on hostile Unicode, sequences of
 * patterns, places where texts may be cut, and the alphabet of bytes. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/byte_alphabet.h"
#include "data/pretokenizer.h"
#include "data/utf8.h"

static kp_pretokenizer *make(const char *const *patterns, size_t count, bool only_pcre2) {
  kp_error error = {0};
  kp_pretokenizer *made = NULL;
  check_ok(kp_pretokenizer_create(patterns, count, only_pcre2, &made, &error), &error);
  return made;
}

/* The ends of all pieces; returns how many. */
static size_t cut(kp_pieces *pieces, const char *text, size_t size, size_t *ends) {
  kp_error error = {0};
  size_t count = 0, at = 0;
  kp_text_view piece;
  kp_pieces_begin(pieces, text, size);
  for (;;) {
    check_ok(kp_pieces_next(pieces, &piece, &error), &error);
    if (piece.size == 0) break;
    assert_ptr_equal(piece.data, text + at);
    at += piece.size;
    ends[count++] = at;
  }
  assert_int_equal(at, size);
  return count;
}

/* The pieces of a short text, joined by '|'. */
static void check_pieces(const char *const *patterns, size_t count, const char *text, const char *expected) {
  for (int only_pcre2 = 0; only_pcre2 < 2; only_pcre2++) {
    kp_error error = {0};
    kp_pretokenizer *pretokenizer = make(patterns, count, only_pcre2 == 1);
    kp_pieces *pieces = NULL;
    size_t ends[256], begin = 0;
    char joined[1024] = "";
    check_ok(kp_pieces_create(pretokenizer, &pieces, &error), &error);
    const size_t found = cut(pieces, text, strlen(text), ends);
    for (size_t i = 0; i < found; begin = ends[i++]) {
      strcat(joined, i == 0 ? "" : "|");
      strncat(joined, text + begin, ends[i] - begin);
    }
    assert_string_equal(joined, expected);
    kp_pieces_destroy(pieces);
    kp_pretokenizer_destroy(pretokenizer);
  }
}

static void test_gpt2_pieces(void **state) {
  (void)state;
  const char *const gpt2[] = {KP_PATTERN_GPT2};
  check_pieces(gpt2, 1, "", "");
  check_pieces(gpt2, 1, "Hello world", "Hello| world");
  check_pieces(gpt2, 1, "don't I'LL we'll", "don|'t| I|'|LL| we|'ll");
  check_pieces(gpt2, 1, "a  b\n\n c", "a| | b|\n\n| c");
  check_pieces(gpt2, 1, "a   ", "a|   ");
  check_pieces(gpt2, 1, "x12 345!? ...", "x|12| 345|!?| ...");
  check_pieces(gpt2, 1, "\xC3\xA9t\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD",
               "\xC3\xA9t\xC3\xA9| \xE4\xBD\xA0\xE5\xA5\xBD");
  check_pieces(gpt2, 1, "a\xC2\xA0\xE3\x80\x80z", "a|\xC2\xA0|\xE3\x80\x80|z");
  /* U+180E was white space in old versions of Unicode; it is none. */
  check_pieces(gpt2, 1, " \xE1\xA0\x8E!", " \xE1\xA0\x8E!");
}

static void test_llama3_pieces(void **state) {
  (void)state;
  const char *const llama3[] = {KP_PATTERN_LLAMA3};
  check_pieces(llama3, 1, "Hello world", "Hello| world");
  check_pieces(llama3, 1, "I'LL don'T", "I|'LL| don|'T");
  check_pieces(llama3, 1, "it'\xC5\xBF ok", "it|'\xC5\xBF| ok");
  check_pieces(llama3, 1, "1234567 89", "123|456|7| |89");
  check_pieces(llama3, 1, "(word \t\tx", "(word| \t|\tx");
  check_pieces(llama3, 1, "end.\r\n\n  next", "end|.\r\n\n| | next");
  check_pieces(llama3, 1, "a  \n \n  b", "a|  \n \n| | b");
  check_pieces(llama3, 1, " !?\n", " !?\n");
}

static void test_sequences_and_gaps(void **state) {
  (void)state;
  const char *const digits_then_gpt2[] = {"\\p{N}", KP_PATTERN_GPT2};
  check_pieces(digits_then_gpt2, 2, "a 12 b", "a| |1|2| b");
  const char *const commas[] = {","};
  check_pieces(commas, 1, "a,,b c,", "a|,|,|b c|,");
  /* An empty match cuts, as in Hugging Face's tokenizers. */
  const char *const empty[] = {"x*"};
  check_pieces(empty, 1, "axxb", "a|xx|b");
  check_pieces(NULL, 0, "a b, c", "a b, c");
}

static void test_escapes(void **state) {
  (void)state;
  const char *const words[] = {"\\w+"};
  check_pieces(words, 1, "a_1 \xE2\x92\xB6-b", "a_1| |\xE2\x92\xB6|-|b");
  /* One half is a word character, but not of a class; one ninth is none. */
  check_pieces(words, 1, "a\xC2\xBD \xE2\x85\x91", "a\xC2\xBD| \xE2\x85\x91");
  const char *const class_of_words[] = {"[\\w]+"};
  check_pieces(class_of_words, 1, "a\xC2\xBD", "a|\xC2\xBD");
  /* A letter and a digit of Unicode 16. */
  const char *const letters[] = {"\\p{L}+|\\d"};
  check_pieces(letters, 1, "\xF0\x90\xB5\x8A\xF0\x90\xB5\x8A.\xF0\x90\xB5\x80\xF0\x90\xB5\x80",
               "\xF0\x90\xB5\x8A\xF0\x90\xB5\x8A|.|\xF0\x90\xB5\x80|\xF0\x90\xB5\x80");
  const char *const not_spaces[] = {"[\\S]+"};
  check_pieces(not_spaces, 1, "a \xE1\xA0\x8E b", "a| |\xE1\xA0\x8E| |b");
  const char *const bracket[] = {"[]\\d]"};
  check_pieces(bracket, 1, "a]1[", "a|]|1|[");
}

static void test_refused_patterns(void **state) {
  (void)state;
  static const char *const refused[][2] = {
      {"\\h+", "\\h"},   {"[\\W]", "\\W"},        {"[a[b]]", "'[' inside"}, {"[a&&b]", "'&&'"},
      {"a{,3}", "'{,'"}, {"\\p{N}{1,3}+", "'+'"}, {"(a", "regular"},        {"[a", "regular"},
      {"[[:x", "'[:'"},  {"\\", "regular"},       {"a\\Cb", "regular"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    kp_error error = {0};
    kp_pretokenizer *made = NULL;
    assert_int_not_equal(kp_pretokenizer_create(&refused[i][0], 1, false, &made, &error), KP_OK);
    assert_non_null(strstr(error.message, refused[i][0]));
    assert_non_null(strstr(error.message, refused[i][1]));
  }
}

/* What only begins like {n,m} is text, at the end of the pattern too. */
static void test_open_interval(void **state) {
  (void)state;
  const char *const patterns[] = {"a{1"};
  static const char text[] = "a{1b";
  kp_error error = {0};
  kp_pretokenizer *pretokenizer = make(patterns, 1, false);
  kp_pieces *pieces = NULL;
  kp_text_view piece;
  assert_int_equal(kp_pieces_create(pretokenizer, &pieces, &error), KP_OK);
  kp_pieces_begin(pieces, text, sizeof text - 1);
  assert_int_equal(kp_pieces_next(pieces, &piece, &error), KP_OK);
  assert_int_equal((int)piece.size, 3);
  kp_pieces_destroy(pieces);
  kp_pretokenizer_destroy(pretokenizer);
}

/* A pattern that goes back without end is an error, not an endless wait or a crash. */
static void test_limits(void **state) {
  (void)state;
  const char *const hostile[] = {"(a+)+$"};
  kp_error error = {0};
  kp_pretokenizer *pretokenizer = make(hostile, 1, false);
  kp_pieces *pieces = NULL;
  char text[64];
  memset(text, 'a', sizeof text);
  text[63] = 'b';
  kp_text_view piece;
  check_ok(kp_pieces_create(pretokenizer, &pieces, &error), &error);
  kp_pieces_begin(pieces, text, sizeof text);
  assert_int_equal(kp_pieces_next(pieces, &piece, &error), KP_ERR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "limit"));
  kp_pieces_destroy(pieces);
  kp_pretokenizer_destroy(pretokenizer);
}

/* ---- hand-written code against PCRE2 ---- */

/* Random text that is rich in what the patterns tell apart. */
static size_t hostile_text(uint64_t seed, char *out, size_t characters) {
  static const char *const frequent[] = {" ",
                                         " ",
                                         "\n",
                                         "\r",
                                         "\t",
                                         "'",
                                         "s",
                                         "S",
                                         "t",
                                         "re",
                                         "LL",
                                         "ve",
                                         "d",
                                         "a",
                                         "\xC3\xA9",
                                         "1",
                                         "2",
                                         "\xD9\xA3",
                                         ".",
                                         "!",
                                         "\xC2\xA0",
                                         "\xE3\x80\x80",
                                         "\xC2\x85",
                                         "\xE2\x80\xA8",
                                         "\xC5\xBF",
                                         "\xE1\xA0\x8E",
                                         "\xF0\x9F\x98\x80",
                                         "\xCC\x81",
                                         "\xE2\x80\x8B",
                                         "\xC2\xB2"};
  size_t used = 0;
  for (size_t i = 0; i < characters; i++) {
    const uint64_t drawn = kp_random_bits(seed, 0, 0, i);
    if (drawn % 4 != 0) {
      const char *chosen = frequent[drawn / 128 % (sizeof frequent / sizeof *frequent)];
      memcpy(out + used, chosen, strlen(chosen));
      used += strlen(chosen);
      continue;
    }
    uint32_t c = (uint32_t)(drawn / 128 % (drawn / 32 % 3 == 0 ? 0x110000 : 0x3000));
    if (c >= 0xD800 && c < 0xE000) c = 0xFFFF;
    used += kp_utf8_write(c, out + used);
  }
  return used;
}

/* Both ways to cut by one pattern. */
typedef struct pair {
  kp_pretokenizer *fast, *slow;
  kp_pieces *fast_pieces, *slow_pieces;
} pair;

static pair make_pair(const char *pattern) {
  kp_error error = {0};
  pair made = {.fast = make(&pattern, 1, false), .slow = make(&pattern, 1, true)};
  check_ok(kp_pieces_create(made.fast, &made.fast_pieces, &error), &error);
  check_ok(kp_pieces_create(made.slow, &made.slow_pieces, &error), &error);
  return made;
}

static void destroy_pair(pair *both) {
  kp_pieces_destroy(both->fast_pieces);
  kp_pieces_destroy(both->slow_pieces);
  kp_pretokenizer_destroy(both->fast);
  kp_pretokenizer_destroy(both->slow);
}

static size_t check_equal(const pair *both, const char *text, size_t size, size_t *fast, size_t *slow) {
  const size_t count = cut(both->fast_pieces, text, size, fast);
  assert_int_equal(count, cut(both->slow_pieces, text, size, slow));
  assert_memory_equal(fast, slow, count * sizeof *fast);
  return count;
}

static const char *const known[] = {KP_PATTERN_GPT2, KP_PATTERN_LLAMA3};

/* The longest hostile text, in characters. */
enum { HOSTILE = 4000, HOSTILE_TEXTS = 150 };

static void test_hostile_text(void **state) {
  (void)state;
  char *text = malloc(KP_UTF8_LONGEST * HOSTILE);
  size_t *ends = malloc(2 * KP_UTF8_LONGEST * HOSTILE * sizeof *ends);
  for (size_t k = 0; k < 2; k++) {
    pair both = make_pair(known[k]);
    for (uint64_t seed = 0; seed < HOSTILE_TEXTS; seed++) {
      const size_t size = hostile_text(seed, text, seed % 2 == 0 ? seed : HOSTILE);
      check_equal(&both, text, size, ends, ends + KP_UTF8_LONGEST * HOSTILE);
    }
    destroy_pair(&both);
  }
  free(text);
  free(ends);
}

/* Every character of Unicode in the middle of what the patterns know. */
static void test_every_character(void **state) {
  (void)state;
  enum { BATCH = 4096, ROOM = 48 };
  char *text = malloc(BATCH * ROOM);
  size_t *ends = malloc(2 * BATCH * ROOM * sizeof *ends);
  for (size_t k = 0; k < 2; k++) {
    pair both = make_pair(known[k]);
    for (uint32_t first = 0; first <= KP_UTF8_LAST_CODE_POINT; first += BATCH) {
      size_t size = 0;
      for (uint32_t c = first; c < first + BATCH; c++) {
        char character[KP_UTF8_LONGEST];
        if (c >= 0xD800 && c < 0xE000) continue;
        const int length = (int)kp_utf8_write(c, character);
        if (c == 0) continue; /* printf cannot write it */
        size += (size_t)sprintf(text + size, "a%.*s %.*s1%.*s\n'%.*s", length, character, length, character,
                                length, character, length, character);
      }
      check_equal(&both, text, size, ends, ends + BATCH * ROOM);
    }
    destroy_pair(&both);
  }
  free(text);
  free(ends);
}

/* Cut where kp_pretokenizer_cut says, both parts give the pieces of the whole. */
static void test_places_to_cut(void **state) {
  (void)state;
  char text[KP_UTF8_LONGEST * 200];
  size_t whole[sizeof text], part[sizeof text], found = 0;
  for (size_t k = 0; k < 2; k++) {
    pair both = make_pair(known[k]);
    for (uint64_t seed = 0; seed < 200; seed++) {
      const size_t size = hostile_text(seed, text, 200), count = cut(both.slow_pieces, text, size, whole);
      for (size_t from = 0; from < size; from++) {
        const size_t at = kp_pretokenizer_cut(both.fast, text, size, from);
        assert_true(at > from);
        if (at == size) continue;
        found++;
        const size_t left = cut(both.slow_pieces, text, at, part);
        const size_t right = cut(both.slow_pieces, text + at, size - at, part + left);
        for (size_t i = left; i < left + right; i++) part[i] += at;
        assert_int_equal(left + right, count);
        assert_memory_equal(part, whole, count * sizeof *whole);
      }
    }
    assert_int_equal(kp_pretokenizer_cut(both.slow, "a b c", 5, 0), 5);
    destroy_pair(&both);
  }
  assert_true(found > 10000);
}

/* Pieces of many megabytes take linear time and no stack. */
static void test_long_pieces(void **state) {
  (void)state;
  enum { SIZE = 12000000 };
  static const char letters[] = {'a', ' ', '.', '7', '\n'};
  char *text = malloc(SIZE);
  for (size_t k = 0; k < 2; k++) {
    for (size_t i = 0; i < sizeof letters; i++) {
      for (int only_pcre2 = 0; only_pcre2 < 2; only_pcre2++) {
        if (letters[i] == '7' && k == 1) continue; /* three digits a piece */
        kp_error error = {0};
        kp_pretokenizer *pretokenizer = make(&known[k], 1, only_pcre2 == 1);
        kp_pieces *pieces = NULL;
        size_t ends[4];
        check_ok(kp_pieces_create(pretokenizer, &pieces, &error), &error);
        memset(text, letters[i], SIZE);
        assert_int_equal(cut(pieces, text, SIZE, ends), 1);
        kp_pieces_destroy(pieces);
        kp_pretokenizer_destroy(pretokenizer);
      }
    }
  }
  free(text);
}

static void test_byte_alphabet(void **state) {
  (void)state;
  char bytes[256], written[512], back[512];
  bool seen[KP_ALPHABET_END] = {false};
  for (int byte = 0; byte < 256; byte++) {
    const uint32_t character = kp_alphabet_character((unsigned char)byte);
    assert_true(character < KP_ALPHABET_END && !seen[character]);
    seen[character] = true;
    assert_int_equal(kp_alphabet_byte(character), byte);
    bytes[byte] = (char)byte;
  }
  for (uint32_t c = 0; c < 2 * KP_ALPHABET_END; c++)
    if (c >= KP_ALPHABET_END || !seen[c]) assert_int_equal(kp_alphabet_byte(c), -1);
  assert_int_equal(kp_alphabet_character(' '), 0x120);
  assert_int_equal(kp_alphabet_character('\n'), 0x10A);
  assert_int_equal(kp_alphabet_character(0xAD), 0x143);
  const size_t size = kp_alphabet_write(bytes, 256, written);
  assert_int_equal(kp_alphabet_read(written, size, back), 256);
  assert_memory_equal(bytes, back, 256);
  assert_int_equal(kp_alphabet_read("a b", 3, back), SIZE_MAX);
  assert_int_equal(kp_alphabet_read("\xFF", 1, back), SIZE_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2_pieces),
      cmocka_unit_test(test_llama3_pieces),
      cmocka_unit_test(test_sequences_and_gaps),
      cmocka_unit_test(test_escapes),
      cmocka_unit_test(test_refused_patterns),
      cmocka_unit_test(test_open_interval),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_hostile_text),
      cmocka_unit_test(test_every_character),
      cmocka_unit_test(test_places_to_cut),
      cmocka_unit_test(test_long_pieces),
      cmocka_unit_test(test_byte_alphabet),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
