/* The table of the catalogue: one row a set.  A size or checksum that is not known for certain is left out.
 */
#include <stdio.h>
#include <string.h>

#include "data/catalogue.h"

static const char *const bible_arguments[] = {"bible", "-f", "Gen1:1-Rev22:21", NULL};

static const kp_data_set sets[] = {
    {
        .name = "kjv_char",
        .what = "King James Bible, one verse a line behind its reference; characters",
        .source = "printed by the program 'bible' of Debian's package bible-kjv",
        .licence = "public domain",
        .kind = KP_DATA_TEXT,
        .files = {{NULL, 4404412, "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d"}},
        .arguments = bible_arguments,
        .package = "bible-kjv",
    },
    {
        .name = "shakespeare_char",
        .what = "tiny Shakespeare, 40,000 lines of the plays; characters",
        .source = "karpathy/char-rnn, data/tinyshakespeare/input.txt",
        .licence = "public domain",
        .kind = KP_DATA_TEXT,
        .files =
            {{"https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
              1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}},
    },
    {
        .name = "shakespeare",
        .what = "the same text in the tokens of GPT-2",
        .source = "karpathy/char-rnn, data/tinyshakespeare/input.txt",
        .licence = "public domain",
        .kind = KP_DATA_TEXT,
        .tokenizer = "gpt2",
        .files =
            {{"https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
              1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}},
    },
    {
        .name = "wikitext-2",
        .what = "WikiText-2, raw: good articles of Wikipedia, 2 million words",
        .source = "Salesforce WikiText, wikitext-2-raw-v1.zip, kept by ggml-org/ci at Hugging Face",
        .licence = "CC BY-SA 3.0, GFDL",
        .kind = KP_DATA_TEXT,
        .tokenizer = "gpt2",
        .files = {{"https://huggingface.co/datasets/ggml-org/ci/resolve/"
                   "927b3642933080f1b0e811e2f916e14c292992f9/wikitext-2-raw-v1.zip",
                   4721645, "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"}},
        .members = {"wikitext-2-raw/wiki.train.raw", "wikitext-2-raw/wiki.valid.raw",
                    "wikitext-2-raw/wiki.test.raw"},
    },
    {
        .name = "wikitext-103",
        .what = "WikiText-103, raw: good articles of Wikipedia, 103 million words",
        .source = "Salesforce WikiText, wikitext-103-raw-v1.zip, kept by mattdangerw/wikitext-103-raw at "
                  "Hugging Face",
        .licence = "CC BY-SA 3.0, GFDL",
        .kind = KP_DATA_TEXT,
        .tokenizer = "gpt2",
        .files = {{"https://huggingface.co/datasets/mattdangerw/wikitext-103-raw/resolve/"
                   "3555105b17ae31cc619a136fac72dbe2865c3738/wikitext-103-raw-v1.zip",
                   191984949, "91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794"}},
        .members = {"wikitext-103-raw/wiki.train.raw", "wikitext-103-raw/wiki.valid.raw",
                    "wikitext-103-raw/wiki.test.raw"},
    },
    {
        .name = "fineweb10B",
        .what = "10 billion GPT-2 tokens of FineWeb, shards of modded-nanogpt",
        .source = "kjj0/fineweb10B-gpt2 at Hugging Face, of HuggingFaceFW/fineweb, sample-10BT",
        .licence = "ODC-By 1.0",
        .kind = KP_DATA_SHARDS,
        .tokenizer = "gpt2",
        .files = {{"https://huggingface.co/datasets/kjj0/fineweb10B-gpt2/resolve/main/"
                   "fineweb_val_000000.bin",
                   0, NULL}},
        .shard_url = "https://huggingface.co/datasets/kjj0/fineweb10B-gpt2/resolve/main/fineweb_train_",
        .shards = 103,
        .shard_bytes = 200001024,
    },
    {
        .name = "fineweb",
        .what = "FineWeb, the sample of 10 billion tokens: documents of the web",
        .source = "HuggingFaceFW/fineweb at Hugging Face, sample-10BT",
        .licence = "ODC-By 1.0",
        .kind = KP_DATA_PIPE,
        .tokenizer = "gpt2",
        .rows = "hf://datasets/HuggingFaceFW/fineweb/sample/10BT/*.parquet",
    },
    {
        .name = "openwebtext",
        .what = "OpenWebText: 8 million documents that Reddit links to",
        .source = "Skylion007/openwebtext at Hugging Face",
        .licence = "CC0 (packaging)",
        .kind = KP_DATA_PIPE,
        .tokenizer = "gpt2",
        .rows = "hf://datasets/Skylion007/openwebtext/plain_text/*.parquet",
    },
    {
        .name = "wikipedia",
        .what = "English Wikipedia of 1 November 2023: articles as plain text",
        .source = "wikimedia/wikipedia at Hugging Face, 20231101.en",
        .licence = "CC BY-SA 3.0, GFDL",
        .kind = KP_DATA_PIPE,
        .tokenizer = "gpt2",
        .rows = "hf://datasets/wikimedia/wikipedia/20231101.en/*.parquet",
    },
    {
        .name = "sst-2",
        .what = "SST-2 of GLUE: is a sentence of a film review kind or not?",
        .source = "Stanford Sentiment Treebank, SST-2.zip of GLUE",
        .licence = "none stated",
        .kind = KP_DATA_CLASSIFY,
        .tokenizer = "word",
        .files = {{"https://dl.fbaipublicfiles.com/glue/data/SST-2.zip", 7439277,
                   "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"}},
        .members = {"SST-2/train.tsv", "SST-2/dev.tsv"},
    },
    {
        .name = "mnli",
        .what = "MultiNLI of GLUE: does a sentence follow from another?",
        .source = "MultiNLI, MNLI.zip of GLUE; validation is dev_matched",
        .licence = "OANC, CC BY-SA 3.0",
        .kind = KP_DATA_CLASSIFY,
        .tokenizer = "word",
        .files = {{"https://dl.fbaipublicfiles.com/glue/data/MNLI.zip", 312783507,
                   "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"}},
        .members = {"MNLI/train.tsv", "MNLI/dev_matched.tsv", "MNLI/dev_mismatched.tsv"},
    },
    {
        .name = "wnut-17",
        .what = "WNUT-17: rare and new names in posts, 6 kinds",
        .source = "leondz/emerging_entities_17",
        .licence = "CC BY 4.0",
        .kind = KP_DATA_TAG,
        .tokenizer = "word",
        .files = {{"https://raw.githubusercontent.com/leondz/emerging_entities_17/master/wnut17train.conll",
                   493781, "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5"},
                  {"https://raw.githubusercontent.com/leondz/emerging_entities_17/master/emerging.dev.conll",
                   114749, "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8"},
                  {"https://raw.githubusercontent.com/leondz/emerging_entities_17/master/"
                   "emerging.test.annotated",
                   192425, "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0"}},
    },
    {
        .name = "conll-2003",
        .what = "CoNLL-2003, English: names in news, 4 kinds",
        .source = "CoNLL-2003 shared task, conll2003.zip of DeepAI",
        .licence = "Reuters, research",
        .kind = KP_DATA_TAG,
        .tokenizer = "word",
        .files = {{"https://data.deepai.org/conll2003.zip", 0,
                   "96a104d174ddae7558bab603f19382c5fe02ff1da5c077a7f3ce2ced1578a2c3"}},
        .members = {"train.txt", "valid.txt", "test.txt"},
    },
    {
        .name = "alpaca",
        .what = "Alpaca: 52,002 instructions and their answers, made by a model",
        .source = "tatsu-lab/stanford_alpaca, alpaca_data.json",
        .licence = "CC BY-NC 4.0",
        .kind = KP_DATA_DIALOGUE,
        .tokenizer = "gpt2",
        .files = {{"https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/"
                   "761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json",
                   0, "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"}},
    },
    {
        .name = "oasst1",
        .what = "OpenAssistant, 10,364 trees: of each the conversation ranked best",
        .source = "OpenAssistant/oasst1 at Hugging Face, 2023-04-12_oasst_ready.trees.jsonl.gz",
        .licence = "Apache-2.0",
        .kind = KP_DATA_DIALOGUE,
        .tokenizer = "gpt2",
        .files = {{"https://huggingface.co/datasets/OpenAssistant/oasst1/resolve/"
                   "fdf72ae0827c1cda404aff25b6603abec9e3399b/2023-04-12_oasst_ready.trees.jsonl.gz",
                   34145252, "2a9a8fd343e9b28e04a895a669d3253f82d93e9c174d440199ae19d5fafbdff7"}},
        .trees = true,
    },
};

enum { SET_COUNT = sizeof sets / sizeof sets[0] };

const kp_data_set *kp_catalogue(size_t *count) {
  *count = SET_COUNT;
  return sets;
}

kp_status kp_catalogue_find(const char *name, const kp_data_set **set, kp_error *error) {
  char known[512] = "";
  for (size_t i = 0; i < SET_COUNT; i++) {
    if (strcmp(sets[i].name, name) == 0) {
      *set = &sets[i];
      return KP_OK;
    }
    size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ", sets[i].name);
  }
  return kp_fail(error, KP_ERR_INPUT, "there is no data set '%s'; known are %s", name, known);
}

const char *kp_catalogue_task(const kp_data_set *set) {
  static const char *const names[] = {"text", "classify", "tag", "dialogue", "text", "text"};
  return names[set->kind];
}

int64_t kp_catalogue_bytes(const kp_data_set *set) {
  if (set->kind == KP_DATA_SHARDS)
    return (1 + (set->shards < KP_CATALOGUE_SHARDS ? set->shards : KP_CATALOGUE_SHARDS)) * set->shard_bytes;
  int64_t bytes = 0;
  for (size_t i = 0; i < KP_DATA_FILES && set->files[i].url != NULL; i++) bytes += set->files[i].size;
  return set->arguments != NULL ? set->files[0].size : bytes;
}
