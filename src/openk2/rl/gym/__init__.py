"""The gym: families of tasks whose end code can judge, and those that only a critic can.

Those of one question and one answer are `QuestionFamily`s. All of them, and those of the rooms below, are in
`core.families`.
"""
