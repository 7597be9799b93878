"""How much dirt the dumps have, and where the rates are from; how much of everything; when it begins."""

import datetime as dt

# What the best answer of a Stack Exchange question is like. "Real" is the range over the top answers of three archives
# (beer 2020, ai 2016, coffee 2015; 1,567 answered questions) or their mean, by regular expression; the rest is ours.
ANSWER_STYLES = {
    "first_person": 0.20,  # from the first sentence on, "I think it's ...": real 0.20
    "afterword": 0.30,  # the answer, and then a remark in the first person: real 0.37
    "refers": 0.06,  # to another answer, a comment or the site: real 0.05 to 0.11
    "bare": 0.05,  # the value alone: real 0.01 to 0.05 (under 200 characters)
    "off_topic": 0.04,  # a question back, a rebuke, spam: 0.06 to 0.12 of real questions are closed for such
    "long_winded": 0.03,  # right, and then on and on
    "markup": 0.03,  # tags escaped twice, Markdown never rendered
    "clean": 0.29,
}
WRONG_RATE = 0.12  # questions that got no right answer; 0.19 to 0.40 of real top answers score below 3, not all wrong
WRONG_SCORES = (-4, 12)  # votes on a wrong or off-topic top answer, from, below: one in eight still gets its ten
SCORE_MEDIAN, SCORE_SIGMA = 16.0, 0.85  # of right top answers, log-normal. Real quartiles 2, 4, 7: this shape at 1/4
QUESTION_MEDIAN, QUESTION_SIGMA = 4.5, 0.9  # of questions, log-normal, but for one in seven that 5 voted down
QUESTION_CORRELATION = 0.8  # of the logarithms of both. Ranks over all top answers: about .55 (real .50 to .67)
SEVERAL_RATE = 0.55  # questions with more than one answer: real 0.39 to 0.59
LINK_RATE = 0.30  # answers with a link: real 0.60, of longer answers
REPOST_RATE = 0.06  # questions asked again in nearly the same words: real 0.06 to 0.12 are closed
DELETED_USER_RATE = 0.04  # posts whose owner is gone
LORE_RATE = 0.10  # questions about towns, dishes and trades, not about people

WIKIHOW_EMPTY_RATE = 0.02  # articles without a text: 0.005 of wikihowAll.csv, more here so that some exist
WIKIHOW_JUNK_RATE = 0.10  # leftovers of the page: adverts, image credits, links
WIKIHOW_METHOD_RATE = 0.08  # titles with the number of their method stuck on, as in "How to Tune the Harp2"
WIKIHOW_COPY_RATE = 0.06  # articles mirrored under nearly the same title

REDDIT_DELETED_RATE = 0.07  # [deleted] or [removed], by author or moderator
REDDIT_OVER_18_RATE = 0.05
REDDIT_LOW_SCORE_RATE = 0.30  # stories that nobody voted for
REDDIT_CHATTER_RATE = 0.10  # top-level comments that are no story, though the rules ask for one

N_WRITING_PROMPTS, N_ASK_REDDIT = 330, 90
N_INSTANCES = 17  # of each Super-NI task
N_AUTHORED_QUESTIONS, N_DEV, N_TEST, N_SAFETY_TEST = 100, 50, 300, 10

EPOCH = dt.datetime(2019, 3, 1, 8, 0, tzinfo=dt.UTC)
