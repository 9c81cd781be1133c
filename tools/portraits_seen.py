"""What was seen of the portraits that `build_identity_model.py` reads, each of them unwrapped, one by one on sheets of 340 px."""

# Glasses, hats, hard light.
UNUSABLE = """female_0 female_13 female_14 female_21 female_26 female_3 female_30 female_34 female_35 female_40 female_42
female_43 female_45 female_5 female_50 female_54 female_58 female_65 female_66 female_69 female_7 female_72 female_73
female_75 female_79 female_8 female_87 female_95 female_98 male_0 male_14 male_15 male_18 male_2 male_23 male_24 male_25
male_28 male_33 male_4 male_57 male_59 male_64 male_66 male_77 male_81 male_82 male_83 male_84 male_86 male_88 male_94 male_95"""
# Hair, a shadow or a smear on one region; teeth, a blur, eyes that look ill.
SPOILT = {
    "eyes": """female_11 female_17 female_23 female_27 female_29 female_33 female_41 female_52 female_57
    female_59 female_77 female_88 female_89 female_96 female_99 male_34 male_38 male_39 male_46 male_48 male_49
    male_5 male_50 male_51 male_69 male_73 male_80 male_85 male_89 male_9 male_93 male_99""",
    "brows": """female_11 female_17 female_19 female_22 female_27 female_33 female_37 female_49 female_52 female_57 female_59
    female_68 female_70 female_77 female_85 female_88 female_91 female_96 male_29 male_5 male_71 male_80""",
    "nose": "female_22 female_89 female_91 male_48 male_71 male_78 male_80 male_91",
    "mouth": "female_1 female_22 female_64 female_70 female_91 female_92 male_71 male_74 male_90",
    "forehead": """female_11 female_27 female_33 female_38 female_52 female_59 female_77 female_78 female_85
    female_86 female_88 female_92 male_11 male_29 male_5""",
    "cheeks": "female_70 female_85 female_88 female_89 male_11 male_26 male_31 male_7 male_87 male_98",
}
# Men without a beard, a moustache or stubble: `traits.beard` takes a shaded jaw for one and overlooks a thin moustache.
SHAVEN = """male_1 male_10 male_12 male_19 male_21 male_22 male_30 male_36 male_37 male_38 male_43 male_44 male_45 male_47 male_50 male_53
male_55 male_56 male_58 male_6 male_61 male_63 male_65 male_70 male_87 male_92 male_97"""
# Hair or a streak of light on one half of the image: the other half serves for both.
HALF_SPOILT = {
    "left": """female_1 female_22 female_31 female_56 female_60 female_62 female_64 female_76 female_82 female_84 female_90 female_91""",
    "right": "female_28 female_4 female_51 female_71 male_63 male_71",
}
